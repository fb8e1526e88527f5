"""The fields of bodies, answers and parameters that all resources share."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rest_framework import serializers

from authsvc.audit.actors import MAX_REASON
from authsvc.durations import duration
from devicehub.api import paging
from devicehub.api.bodies import moment

TEXT, TRUTH, NUMBER = "Write a text, in quotes.", "Write true or false.", "Write a number, without quotes."
# The types of JSON that a field of a body takes; fields of the library also take others that they can convert.
JSON_TYPES: tuple[tuple[type[serializers.Field], tuple[type, ...], str], ...] = (
    (serializers.CharField, (str,), TEXT),
    (serializers.DateTimeField, (str,), TEXT),
    (serializers.BooleanField, (bool,), TRUTH),
    (serializers.IntegerField, (int,), NUMBER),
    (serializers.FloatField, (int, float), NUMBER),
)
MIN_64, MAX_64 = -(2**63), 2**64 - 1


class Moment(serializers.DateTimeField):
    """A time in RFC 3339. Answers have it in UTC; in a body or a parameter a time without a zone is refused."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("default_timezone", UTC)
        super().__init__(**options)

    def to_internal_value(self, value: Any) -> datetime:
        """Return the time in *value*. Raise ValidationError."""
        try:
            # A + that was not percent-encoded in a query is a space.
            found = datetime.fromisoformat(str(value)[:40].replace(" ", "+" if "T" in str(value) else " "))
        except ValueError:
            raise serializers.ValidationError("Write a time as 2026-12-01T06:00:00Z.") from None
        if found.tzinfo is None:
            raise serializers.ValidationError("Give a zone, such as 2026-12-01T06:00:00Z.")
        try:
            return found.astimezone(UTC)
        except OverflowError:
            raise serializers.ValidationError("This time is beyond the years 1 to 9999.") from None

    def to_representation(self, value: Any) -> Any:
        """Return *value* as RFC 3339 in UTC."""
        return value if value is None or isinstance(value, str) else moment(value)


class Duration(serializers.CharField):
    """A duration as people write it, such as `90s`, `15m`, `24h` or `7d`; only for bodies."""

    def to_internal_value(self, value: Any) -> Any:
        """Return the duration in *value* as a timedelta. Raise ValidationError."""
        text = super().to_internal_value(value)
        try:
            found: timedelta = duration(text)
        except ArgumentTypeError:
            raise serializers.ValidationError("Write a duration as 90s, 15m, 24h or 7d.") from None
        return found


class Choice(serializers.ChoiceField):
    """One of a few words; the refusal of another one lists them."""

    def __init__(self, choices: Any, **options: Any) -> None:
        super().__init__(choices, **options)
        words = ", ".join(str(word) for word in self.choices)
        self.error_messages["invalid_choice"] = f'"{{input}}" is not a valid choice; choose one of {words}.'


class Reason(serializers.CharField):
    """The reason of a change, for the audit; only for bodies."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            required=False,
            default="",
            allow_blank=True,
            max_length=MAX_REASON,
            help_text="It stands in the audit beside the change.",
            **options,
        )


class Names(serializers.CharField):
    """A parameter with names, separated by commas."""

    default_error_messages = {"many": "Give at most 100 names."}

    def to_internal_value(self, value: Any) -> Any:
        """Return a list of the names, each once. Raise ValidationError."""
        found = list(dict.fromkeys(name.strip() for name in str(value).split(",") if name.strip()))
        if len(found) > 100:
            self.fail("many")
        return found

    def to_representation(self, value: Any) -> Any:
        """Return the names as one text."""
        return ",".join(value)


class Closed(serializers.Serializer):
    """A serializer of a body that refuses names which it does not have, so that a misspelt one is not ignored.

    It also refuses a value of another type of JSON than the schema declares, such as 1 for a text.
    """

    def to_internal_value(self, data: Any) -> Any:
        """Return the values of *data*. Raise ValidationError."""
        if isinstance(data, Mapping):
            unknown = [str(name)[:100] for name in data if name not in self.fields][:20]
            if unknown:
                writable = ", ".join(sorted(n for n, field in self.fields.items() if not field.read_only))
                raise serializers.ValidationError(
                    dict.fromkeys(unknown, f"There is no such field; use {writable}.")
                )
        wrong = _mistyped(self.fields, data)
        try:
            found = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**error.detail, **wrong}) from error
        if wrong:
            raise serializers.ValidationError(wrong)
        return found


def _mistyped(fields: Mapping[str, serializers.Field], data: Any) -> dict[str, Any]:
    """Return the faults of the values in *data* that have another type of JSON than their field, by name."""
    if not isinstance(data, Mapping):
        return {}
    faults = {name: _fault(field, data[name]) for name, field in fields.items() if name in data}
    return {name: fault for name, fault in faults.items() if fault}


def _fault(field: serializers.Field, value: Any) -> Any:
    """Return the fault of *value*, in a list by its places; nothing for one of the type of *field*."""
    if isinstance(field, serializers.ListField):
        inner = enumerate(value if isinstance(value, list) else ())
        return {place: fault for place, one in inner if (fault := _fault(field.child, one))}
    if value is None:
        return None
    for kind, types, fault in JSON_TYPES:
        if isinstance(field, kind):
            is_right = isinstance(value, types) and (bool in types or not isinstance(value, bool))
            return None if is_right else [fault]
    return None


class SelectedOne(serializers.Serializer):
    """The parameter of every object and list: the members to return."""

    def get_fields(self) -> Any:
        """Return the fields, with one whose name is that of an attribute of serializers."""
        found = super().get_fields()
        found["fields"] = Names(
            required=False,
            default=list,
            help_text="The members to return, separated by commas; without it, all.",
        )
        return found


class Selected(SelectedOne):
    """The parameters of every list."""

    cursor = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        help_text="The place of the page, from `next` or `previous`.",
    )
    limit = serializers.IntegerField(
        required=False,
        default=paging.DEFAULT,
        min_value=1,
        max_value=paging.MOST,
        help_text="Rows of a page.",
    )


class Selectable(serializers.Serializer):
    """A serializer of answers, of which `fields=` selects members. Raise ValidationError for unknown ones."""

    def get_fields(self) -> Any:
        """Return the fields that the context selects, or all."""
        found = super().get_fields()
        wanted = self.context.get("fields") or ()
        unknown = [name for name in wanted if name not in found]
        if unknown:
            raise serializers.ValidationError(
                {"fields": f"There is no member {unknown[0][:100]}; there are {', '.join(found)}."}
            )
        return {name: field for name, field in found.items() if name in wanted} if wanted else found
