"""What a secret looks like where it leaked, and a handler that keeps all that is logged."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import quote


def forms_of(secret: str) -> set[str]:
    """*secret* as it may stand in a log: as it is, quoted for a URL, in hex, and in base64 wherever it began."""
    raw = secret.encode()
    found = {secret, quote(secret, safe=""), raw.hex(), repr(secret)[1:-1]}
    for before in range(3):
        # The characters at both ends also hold bits of what stands beside it.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(b"x" * before + raw).decode().rstrip("=")[(0, 2, 3)[before] : -1])
    return found


def leaked(text: str, secrets: Iterable[str]) -> list[str]:
    """The forms of *secrets* that *text* holds."""
    return [form for secret in secrets for form in forms_of(secret) if form in text]


class Everything(logging.Handler):
    """Keeps each record as every handler might write it: its text, its traceback, and all that is tied to it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += [self.format(record), repr(record.__dict__), record.getMessage()]
        trace = record.exc_info[2] if record.exc_info else None
        while trace is not None:  # what rich, an error tracker or Django's mails print beside a traceback
            self.lines.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next


@contextmanager
def everything_logged() -> Iterator[Everything]:
    """All that any logger says at DEBUG, those that keep it from the root's handlers included."""
    handler = Everything()
    kept: list[tuple[logging.Logger, int]] = []
    for name in ["", *logging.root.manager.loggerDict]:
        logger = logging.getLogger(name)
        kept.append((logger, logger.level))
        asks = name.partition(".")[0] in ("httpx", "httpcore")  # what the asking side says is no leak
        logger.setLevel(logging.WARNING if asks else logging.DEBUG)
        if not name or not logger.propagate:
            logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger, level in kept:
            logger.setLevel(level)
            logger.removeHandler(handler)
