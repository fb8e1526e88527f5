"""A value that was kept as it was sent becomes one of the type that its resource has by now."""

from __future__ import annotations

from typing import Any

from devicehub.messages.lwm2m import text_opaque, tlv
from devicehub.messages.lwm2m.values import DataType, typed


def retyped(kind: str, held: Any, declared: DataType) -> tuple[DataType, Any] | None:
    """Return *held*, a value of type *kind*, as one of type *declared*; None if it is not one.

    >>> retyped("Opaque", bytes.fromhex("41a40000"), DataType.FLOAT)
    (<DataType.FLOAT: 'Float'>, 20.5)
    >>> retyped("String", "on", DataType.BOOLEAN) is None
    True
    """
    try:
        if kind == DataType.OPAQUE:
            found = tlv.read_value(held, declared)
        elif kind == DataType.STRING:
            found = text_opaque.read_text(held, declared)
        else:
            found = typed(held, declared)
    except (ValueError, ArithmeticError):
        return None
    return None if isinstance(found[1], str) and "\x00" in found[1] else found
