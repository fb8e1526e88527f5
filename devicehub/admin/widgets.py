"""Form fields for columns of JSON: lists by line or as check boxes, objects as rows of key and value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from devicehub.messages.json_limits import fault_as_json

MAX_LINES = 1000
MAX_PAIRS = 100
SPARE_PAIRS = 3  # Empty rows below the pairs that exist.


class LinesInput(forms.Textarea):
    """A text area in the face of what machines read, without corrections by the browser."""

    def __init__(self, attrs: Mapping[str, Any] | None = None) -> None:
        plain = {"class": "dh-lines", "rows": 4, "spellcheck": "false", "autocapitalize": "off"}
        super().__init__({**plain, **(attrs or {})})


class LinesField(forms.Field):
    """A list of texts, one per line. Empty lines and repeated entries do not count."""

    widget = LinesInput
    most = MAX_LINES

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[str]:
        """Return the entries of the text *value*. Raise ValidationError if they are too many."""
        entries = value.split("\n") if isinstance(value, str) else value or []
        found = list(dict.fromkeys(entry.strip() for entry in entries if entry.strip()))
        if len(found) > self.most:
            raise ValidationError(f"Write at most {self.most:,} lines.", code="too_many")
        if any("\x00" in entry for entry in found):
            raise ValidationError("Leave out the null characters.", code="null")
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return list(initial or []) != self.to_python(data)
        except ValidationError:
            return True


class ChoiceBoxes(forms.CheckboxSelectMultiple):
    def __init__(self, attrs: Mapping[str, Any] | None = None, choices: Any = ()) -> None:
        super().__init__({"class": "dh-boxes", **(attrs or {})}, choices)


class ChoiceBoxesField(forms.MultipleChoiceField):
    """A list of texts out of a closed set, as check boxes; *choices* are pairs, or a function that returns them."""

    widget = ChoiceBoxes


class PairsInput(forms.Widget):
    template_name = "devicehub/admin/pairs.html"

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        pairs = list(value) if isinstance(value, list) else []
        context["pairs"] = pairs + [("", "")] * min(SPARE_PAIRS, max(MAX_PAIRS - len(pairs), 0))
        return context

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[tuple[str, str]]:
        if not hasattr(data, "getlist"):
            return data.get(name) or []
        return list(zip(data.getlist(f"{name}_key"), data.getlist(f"{name}_value"), strict=False))

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return f"{name}_key" not in data

    def id_for_label(self, id_: str) -> str:
        return f"{id_}_key_1" if id_ else id_


class PairsField(forms.Field):
    """An object as rows of key and value. A value that is JSON is kept as such, quotes make a text of it.

    >>> field = PairsField(required=False)
    >>> field.clean([("floor", "2"), ("room", "B7"), ("door", '"2"'), ("", "")])
    {'floor': 2, 'room': 'B7', 'door': '2'}
    >>> field.prepare_value({"floor": 2, "room": "B7", "door": "2"})
    [('floor', '2'), ('room', 'B7'), ('door', '"2"')]
    """

    widget = PairsInput

    def prepare_value(self, value: Any) -> Any:
        return [(key, _written(entry)) for key, entry in value.items()] if isinstance(value, dict) else value

    def to_python(self, value: Any) -> dict[str, Any]:
        """Return the object of the rows *value*.

        Raise ValidationError for a value without a key, a repeated key, or one that a database does not store.
        """
        if isinstance(value, dict):
            return value
        rows = [(key.strip(), entry.strip()) for key, entry in value or () if key.strip() or entry.strip()]
        if len(rows) > MAX_PAIRS:
            raise ValidationError(f"Keep at most {MAX_PAIRS} pairs.", code="too_many")
        found: dict[str, Any] = {}
        for key, entry in rows:
            if not key:
                raise ValidationError(
                    "The value %(value)s has no key.", params={"value": entry}, code="no_key"
                )
            if key in found:
                raise ValidationError("The key %(key)s stands twice.", params={"key": key}, code="twice")
            found[key] = _read(entry)
            _check_storable(key, found[key])
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return (initial or {}) != self.to_python(data)
        except ValidationError:
            return True


def _written(value: Any) -> str:
    """Return *value* as the text that `_read` turns into it again."""
    if isinstance(value, str) and value and value == value.strip() and _read(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _read(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _check_storable(key: str, value: Any) -> None:
    try:
        fault = fault_as_json([key, value])
    except RecursionError:
        fault = "is nested too deep"
    if fault is not None:
        about = {"key": key, "fault": fault}
        raise ValidationError("The pair of %(key)s %(fault)s.", params=about, code="unstorable")


def _refuse(constant: str) -> None:
    """Raise ValueError: NaN and the infinities are not JSON, and no database stores them."""
    raise ValueError(constant)
