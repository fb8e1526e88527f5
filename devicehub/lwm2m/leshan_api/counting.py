"""The count of posts, among the metrics of the process that answers them."""

from __future__ import annotations

from enum import StrEnum

from authsvc.operation import metrics
from devicehub.ingest.posted import Ended


class Refusal(StrEnum):
    """Why a post was answered without a message: the values of the label `reason` beside the outcome `refused`."""

    METHOD = "not_post"
    TOKEN = "unknown_token"  # noqa: S105 - a reason
    GUESSES = "too_many_tokens"
    TOO_LONG = "too_long"
    UNREADABLE = "unreadable"
    DATABASE = "database"
    SLOW = "timed_out"


REFUSED = "refused"
_posts = metrics.counter(
    "devicehub_leshan_api_posts",
    "Posts of the bridge of flownexus, by path and outcome, failed and refused ones also by reason.",
    ["path", "outcome", "reason"],
)


def ended(shape: str, end: Ended) -> None:
    """Count a post to the path *shape* that became a message."""
    _posts.add(shape, end.outcome.value, str(end.reason or ""))


def refused(shape: str, reason: Refusal) -> None:
    """Count a post to the path *shape* that did not."""
    _posts.add(shape, REFUSED, reason.value)
