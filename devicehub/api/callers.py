"""The caller of a request: a person with a session, a program with a key of a person, or a device with its own key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from authsvc.serving import addresses
from authsvc.serving.failures import Failures
from devicehub import actors, api_keys, visibility
from devicehub.api import device_keys
from devicehub.api.device_keys import LONGEST_KEY, MANY_KEYS, MAX_OF_ONE
from devicehub.api.problems import Problem
from devicehub.db.statements import query
from devicehub.kinds.registry import Kind, registry
from devicehub.models import ApiKey, digest_api_key

SCHEME = "Api-Key"
_failures = Failures("api.locked", lambda: MAX_OF_ONE, lambda: MANY_KEYS)


@dataclass(frozen=True)
class DeviceCaller:
    """A device that sent its own API key. It is not a user and has no permission of one."""

    kind: Kind
    pk: int
    device_id: str

    is_authenticated = True
    is_anonymous = False
    is_active = False
    is_superuser = False
    is_staff = False

    @property
    def key(self) -> str:
        """The key of the device, such as `weatherstation/STATION-001`."""
        return self.kind.key(self.device_id)

    def get_username(self) -> str:
        """Return the key of the device, for logs."""
        return self.key

    def has_perm(self, permission: str, obj: Any = None) -> bool:
        """Return False: its rights are those of the routes that are open to devices."""
        return False


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Api-Key <key>`, the key of a program or of a device."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        """Return the user and the row of the key, or the device; None without such a header.

        Raise AuthenticationFailed, or Problem `too-many-requests` for an address that guesses.
        """
        return of_request(request._request)

    def authenticate_header(self, request: Request) -> str:
        """Return the challenge of an answer with status 401."""
        return SCHEME


class WithSession(SessionAuthentication):
    """A session of the pages. Requests that change something need the CSRF token."""


@sensitive_variables("secret")
def of_request(request: HttpRequest) -> tuple[Any, Any] | None:
    """Return the caller whose key *request* carries, as KeyAuthentication does."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != SCHEME.lower():
        return None
    secret = secret.strip()
    if secret and len(secret) <= LONGEST_KEY and secret.isascii():
        found = (
            _of_program(secret, request) if secret.startswith(api_keys.START) else _of_device(secret, request)
        )
        if found is not None:
            return found
    address = addresses.subscriber(addresses.of_request(request))
    digest = digest_api_key(secret[:LONGEST_KEY])
    if wait := _failures.wait(address, digest):
        text = "Too many invalid API keys came from this address."
        raise Problem("too-many-requests", text, headers={"Retry-After": str(wait)})
    _failures.note(address, digest)
    raise AuthenticationFailed


def _of_program(secret: str, request: HttpRequest) -> tuple[Any, ApiKey] | None:
    row = api_keys.find(secret)
    if row is None:
        return None
    if row.site:
        visibility.narrow(row.owner, row.site)
    api_keys.note_use(row)
    setattr(request, actors.KEY, f"{row.owner.get_username()}, key {row.pk} ({row.name})")
    return row.owner, row


def _of_device(secret: str, request: HttpRequest) -> tuple[DeviceCaller, None] | None:
    """Return the active device whose key *secret* is; one statement for all kinds."""
    kinds = list(registry)
    if not kinds:
        return None
    rows = query(device_keys.statement(kinds), [digest_api_key(secret)] * len(kinds))
    if len(rows) != 1:
        return None
    position, pk, device_id, _username = rows[0]
    device = DeviceCaller(kinds[position], pk, device_id)
    setattr(request, actors.KEY, device.key)
    return device, None


def name(request: Request) -> str:
    """Return a text that is that of one caller: a key, a user or a device."""
    if isinstance(request.user, DeviceCaller):
        return f"device/{request.user.key}"
    if isinstance(request.auth, ApiKey):
        return f"key/{request.auth.pk}"
    return f"user/{request.user.pk}"
