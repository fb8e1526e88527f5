"""Reading of replies to commands."""

from __future__ import annotations

from typing import Any

from devicehub.commands import replies
from devicehub.messages import validate
from devicehub.messages.message import FailureReason, Message, Unreadable

LONGEST = 64 << 10  # The most bytes of a reply.


def read(content: Any, message: Message) -> dict[str, Any]:
    """Return the reply in *content*, with its `id` and `ok`, in a form that databases can store. Raise Unreadable.

    Without an `id` the correlation data is used, which MQTT 5 lets a device send back as it came. It is also used
    if it can be the id of a command and the `id` cannot: some devices count their messages there.
    """
    if len(message.payload) > LONGEST:
        raise Unreadable(FailureReason.TOO_LARGE, f"a reply has at most {LONGEST} bytes")
    if not isinstance(content, dict):
        raise Unreadable(FailureReason.NOT_A_READING, "a reply must be an object")
    reply: dict[str, Any] = validate.replace_unstorable(content)
    correlated = replies.command_id(message.correlation_id) is not None
    own = reply.get("id")
    if message.correlation_id and (own is None or (correlated and replies.command_id(own) is None)):
        reply["id"] = validate.replace_unstorable(message.correlation_id)
    if "id" not in reply:
        raise Unreadable(
            FailureReason.NOT_A_READING, "a reply must have the id of its command, or its correlation data"
        )
    if not isinstance(reply.get("ok"), bool):
        raise Unreadable(FailureReason.NOT_A_READING, "a reply must have ok, true or false")
    return reply
