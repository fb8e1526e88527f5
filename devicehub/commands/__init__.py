"""Commands to devices: a row is queued, a sender publishes it, and the device's reply answers it."""

from devicehub.commands.queue import CommandNotSent, cancel, delete_open, enqueue, send, send_many
from devicehub.commands.sender import close, send_due

__all__ = ["CommandNotSent", "cancel", "close", "delete_open", "enqueue", "send", "send_due", "send_many"]
