"""Filters that keep tokens, passwords and floods of lines out of logs, mails and terminals.

Secrets are in paths and queries of questions, and in local variables of this package, which some handlers print beside
a traceback (AdminEmailHandler with include_html, rich, error trackers). The path of a mistyped URL, which is not a
question, may hold a token too: so every part of a path that could be a token is masked.
"""

from __future__ import annotations

import logging
import pkgutil
import re
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from django.core.exceptions import SuspiciousOperation

from authsvc.dialects import DIALECTS

LINES, SECONDS = 10, 60.0  # At most so many lines of one kind in this time.
LENGTH = 200  # Maximum characters of a line.
SERVERS = ("gunicorn", "uvicorn", "hypercorn")
_NAMES = "|".join(re.escape(dialect.name) for dialect in DIALECTS)
# `k/<token>/` before a dialect, at any path of the project; or any part as long as a token.
_TOKEN = re.compile(rf"(/k/+)(?:[^/\s]+(?=/+(?:{_NAMES})\b)|[\w%-]{{20,}})")
_IN_MQTT = re.compile(r"(mqtt/+k/+)[^/\s]+")
_QUERY = re.compile(rf"(/(?:{_NAMES})/+\w+/?\?)[^\s'\"]+")
# A part of a path. It may be a token if it has 20 characters of base64url, also percent-encoded.
_PART = re.compile(r"[^/\s'\"<>]+")
_RUN = re.compile(r"(?:[\w-]|%[0-9A-Fa-f]{2}){20,}", re.ASCII)
_ORDINARY = re.compile(r"[a-z_]{,31}")  # Names of models in paths of the admin.
_QUESTION = re.compile(rf"/(?:{_NAMES})(?:/|\Z)|/k/")


class Shown(Exception):
    """The text of a traceback in place of the traceback, whose frames hold secrets in variables."""


class Bounded(logging.Filter):
    """A filter for a handler that bounds the log lines that clients can cause.

    Lines of Django about refused requests lose their traceback and all but LENGTH characters, and at most LINES
    of one kind pass in SECONDS. The next line then gives the number of dropped ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, int | None], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* passes, after shortening it."""
        status: int | None = record.__dict__.get("status_code")
        is_suspicion = record.name.startswith("django.security.")
        if not is_suspicion and not (record.name == "django.request" and status and 400 <= status < 500):
            return True
        kind = self._kinds.setdefault((record.name, status), _Kind())
        if (dropped := kind.count(time.monotonic())) is None:
            return False
        message = record.getMessage()
        if len(message) > LENGTH:
            message = f"{message[:LENGTH]}..."
        if dropped:
            message = f"{message} ({dropped} more lines of this kind were dropped)"
        record.msg, record.args = message, ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


class _Kind:
    """The numbers of lines of one kind that passed lately, and that were dropped."""

    def __init__(self) -> None:
        self._since = -SECONDS
        self._passed = self._dropped = 0

    def count(self, now: float) -> int | None:
        """Return the number of lines dropped before this one, or None if this one is dropped too."""
        if now - self._since >= SECONDS:
            self._since, self._passed = now, 0
        if self._passed >= LINES:
            self._dropped += 1
            return None
        self._passed += 1
        dropped, self._dropped = self._dropped, 0
        return dropped


def install() -> None:
    """Add filters to the loggers that may print questions. Call it once, when Django has started."""
    for name in _loggers():
        logging.getLogger(name).addFilter(hide_question)
    for name in modules(Path(__file__).parent, __package__):
        logging.getLogger(name).addFilter(hide_variables)
    if not structlog.is_configured():
        # The default of structlog prints local variables in a traceback. A project can configure it again.
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )


def modules(folder: Path, package: str) -> Iterator[str]:
    """Yield the names of *package*, which is in *folder*, and of all modules below it, without importing them.

    Each module has a logger of that name, and needs the filter, since a filter does not apply to child loggers.
    """
    yield package
    for found in pkgutil.iter_modules([str(folder)]):
        if found.ispkg:
            yield from modules(folder / found.name, f"{package}.{found.name}")
        else:
            yield f"{package}.{found.name}"


def error(log: Any, event: str, **fields: object) -> None:
    """Log the current exception with its traceback as text, so that handlers do not get frames with secrets."""
    log.error(event, traceback=_without_secrets(traceback.format_exc()), **fields)


def hide_question(record: logging.LogRecord) -> bool:
    """Remove tokens from the message and the traceback of *record*; always return True, as a filter does.

    A record about a question, or about a path with a token, also loses its request and all variables.
    """
    if isinstance(record.args, tuple):  # One by one, because uvicorn's formatter reads them.
        record.args = tuple(_without_secrets(a) if isinstance(a, str) else a for a in record.args)
    message = record.getMessage()
    if (harmless := _without_secrets(message)) != message:
        record.msg, record.args = harmless, ()
    request = record.__dict__.get("request")
    path = str(getattr(request, "path", ""))
    if _is_question(request) or _without_secrets(path) != path:
        del record.__dict__["request"]
        hide_variables(record)
    elif record.exc_info and record.exc_info[0] is not None:
        text = "".join(traceback.format_exception(*record.exc_info))
        if _without_secrets(text) != text:
            hide_variables(record)
    return True


def hide_variables(record: logging.LogRecord) -> bool:
    """Replace the traceback of *record* by its text; always return True, as a filter does."""
    if record.exc_info and record.exc_info[0] is not None:
        text = _without_secrets("".join(traceback.format_exception(*record.exc_info)))
        record.exc_info, record.exc_text = (Shown, Shown(f"\n{text}"), None), None
    return True


def _is_question(request: Any) -> bool:
    """Return whether *request* is for brokers, by its view or, before Django has found that, by its path."""
    match = getattr(request, "resolver_match", None)
    if match is not None:
        return bool(getattr(match.func, "is_for_brokers", False))
    return _QUESTION.search(str(getattr(request, "path", ""))) is not None


def _without_secrets(text: str) -> str:
    """Return *text* with every possible token, and the query of a question, masked.

    >>> _without_secrets("Not Found: /go-auth/0pBz6Yz-Nn1pWb3X_4kGQm7RtYv")
    'Not Found: /go-auth/***'
    >>> _without_secrets("Not Found: /admin/fleet/irrigationvalvedevice/17/change/")
    'Not Found: /admin/fleet/irrigationvalvedevice/17/change/'
    """
    for pattern in (_TOKEN, _IN_MQTT, _QUERY):
        text = pattern.sub(r"\1***", text)
    if _RUN.search(text) is None:
        return text
    lines = text.splitlines(keepends=True)  # The frames of a traceback name files, not paths of requests.
    return "".join(line if line.startswith('  File "') else _PART.sub(_masked, line) for line in lines)


def _masked(part: re.Match[str]) -> str:
    """Return *** for a part that could be a token: any long one in a path, elsewhere one of mixed characters."""
    if (run := _RUN.search(part[0])) is None:
        return part[0]
    if "/" in part.string[: part.start()]:
        return part[0] if _ORDINARY.fullmatch(part[0]) else "***"
    return "***" if all(re.search(kind, run[0]) for kind in ("[0-9]", "[A-Z]", "[a-z]")) else part[0]


def _loggers() -> Iterator[str]:
    """Yield the loggers of Django and of servers that print a path.

    Each subclass of SuspiciousOperation has its own logger, and a filter does not apply to child loggers.
    """
    yield from ("django.request", "django.server", "django.security.csrf")
    yield from (f"{server}.{log}" for server in SERVERS for log in ("error", "access"))
    kinds: list[type[SuspiciousOperation]] = [SuspiciousOperation]
    for kind in kinds:
        kinds += kind.__subclasses__()
        yield f"django.security.{kind.__name__}"
