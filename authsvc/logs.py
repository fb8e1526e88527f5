"""What must not reach a log, a mail or a terminal: tokens and passwords of callers and of clients.

They stand in paths and queries of questions, and in the variables of our own functions, which some handlers
print beside a traceback (AdminEmailHandler with include_html, rich, error trackers).
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator
from typing import Any

import structlog
from django.core.exceptions import SuspiciousOperation

from authsvc.dialects import DIALECTS

OURS = ("gateway", "policy", "renewals", "background")
_NAMES = "|".join(re.escape(dialect.name) for dialect in DIALECTS)
# `k/<token>/` before a dialect, wherever the project includes us; or anything as long as a token.
_TOKEN = re.compile(rf"(/k/+)(?:[^/\s]+(?=/+(?:{_NAMES})\b)|[\w%-]{{20,}})")
_IN_MQTT = re.compile(r"(mqtt/+k/+)[^/\s]+")
_QUERY = re.compile(rf"(/(?:{_NAMES})/+\w+/?\?)[^\s'\"]+")
_QUESTION = re.compile(rf"/(?:{_NAMES})(?:/|\Z)|/k/")


class Shown(Exception):
    """The text of a traceback in place of one: without its frames, whose variables hold secrets."""


def install() -> None:
    """Filter the loggers that speak of questions; called once, when Django has started."""
    for name in _loggers_of_django():
        logging.getLogger(name).addFilter(hide_question)
    for module in OURS:
        logging.getLogger(f"authsvc.{module}").addFilter(hide_variables)
    if not structlog.is_configured():
        # Its default prints the variables of every function in a traceback. What a project sets later wins.
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.format_exc_info,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
        )


def error(log: Any, event: str, **fields: object) -> None:
    """Log the exception at hand with its traceback as text: no handler finds frames, whose variables hold secrets."""
    log.error(event, traceback=_without_secrets(traceback.format_exc()), **fields)


def hide_question(record: logging.LogRecord) -> bool:
    """A filter for Django's loggers: no token in a path or query, and of a question no request and no variable."""
    message = record.getMessage()
    if (harmless := _without_secrets(message)) != message:
        record.msg, record.args = harmless, ()
    if _is_question(record.__dict__.get("request")):
        del record.__dict__["request"]
        hide_variables(record)
    return True


def hide_variables(record: logging.LogRecord) -> bool:
    """A filter that leaves the text of a traceback and takes its frames."""
    if record.exc_info and record.exc_info[0] is not None:
        text = _without_secrets("".join(traceback.format_exception(*record.exc_info)))
        record.exc_info, record.exc_text = (Shown, Shown(f"\n{text}"), None), None
    return True


def _is_question(request: Any) -> bool:
    """Whether *request* asks us; by its path as long as Django has not found the view."""
    match = getattr(request, "resolver_match", None)
    if match is not None:
        return str(getattr(match.func, "__module__", "")) == "authsvc.views"
    return _QUESTION.search(str(getattr(request, "path", ""))) is not None


def _without_secrets(text: str) -> str:
    for pattern in (_TOKEN, _IN_MQTT, _QUERY):
        text = pattern.sub(r"\1***", text)
    return text


def _loggers_of_django() -> Iterator[str]:
    """Those that say a path, and the one of each suspicion, since a filter does not hold for loggers below."""
    yield from ("django.request", "django.server", "django.security.csrf")
    kinds: list[type[SuspiciousOperation]] = [SuspiciousOperation]
    for kind in kinds:
        kinds += kind.__subclasses__()
        yield f"django.security.{kind.__name__}"
