"""The address of a Leshan server, as an operator writes it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from devicehub.errors import DevicehubError

PORTS = {"http": 80, "https": 443}


class InvalidAddress(DevicehubError):
    """A text is not the address of a Leshan server."""


@dataclass(frozen=True)
class Address:
    """Where a Leshan server answers. *path* precedes `/api`, for a server behind a proxy."""

    is_secure: bool
    host: str
    port: int
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str, password: str = "") -> Address:
        """Return the address that *url* names, with the *password* for its username. Raise InvalidAddress.

        >>> Address.parse("http://leshan.internal:8080")
        Address(is_secure=False, host='leshan.internal', port=8080, path='', username='')
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidAddress(f"the address is not a URL ({error})") from error
        if parts.scheme not in PORTS or not parts.hostname:
            raise InvalidAddress("the address is not a URL such as http://leshan.internal:8080")
        if parts.password is not None:
            raise InvalidAddress(
                "the URL holds a password, which other users of this machine can read: leave it out, and set "
                "DEVICEHUB_LESHAN_PASSWORD or DEVICEHUB_LESHAN_PASSWORD_FILE"
            )
        if parts.query or parts.fragment or any(not "!" <= letter <= "~" for letter in url):
            raise InvalidAddress("the address has more than scheme, user, host, port and path")
        username = unquote(parts.username or "")
        if bool(username) != bool(password):
            lacks = "DEVICEHUB_LESHAN_PASSWORD is not set" if username else "the URL names no user"
            raise InvalidAddress(f"a login needs a user in the URL and a password: {lacks}")
        return cls(
            is_secure=parts.scheme == "https",
            host=parts.hostname,
            port=PORTS[parts.scheme] if port is None else port,
            path=parts.path.rstrip("/"),
            username=username,
            password=password,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}{self.path}"
