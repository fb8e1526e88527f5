"""The bodies of requests: a value has the type of JSON that the schema declares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from rest_framework import serializers

from devicehub.api import urls
from devicehub.api.fields import Closed
from devicehub.api.overlaps import Overlap

TEXTS = (serializers.CharField, serializers.DateTimeField, Overlap)
# Values of another type, by the field: the library would take each of them.
WRONG: tuple[tuple[Any, tuple[Any, ...]], ...] = (
    (TEXTS, (1, 1.5, True)),
    (serializers.BooleanField, ("true", 1, "no")),
    ((serializers.IntegerField, serializers.FloatField), ("1", True)),
)


def closed(base: type[Closed] = Closed) -> Iterator[type[Closed]]:
    """Yield the serializers of all bodies."""
    assert urls.urlpatterns  # They are imported.
    for found in base.__subclasses__():
        yield found
        yield from closed(found)


def wrong_values(field: serializers.Field) -> list[Any]:
    """Return values that *field* has to refuse."""
    if isinstance(field, serializers.ListField):
        return [[value] for value in wrong_values(field.child)]
    return [value for kinds, values in WRONG if isinstance(field, kinds) for value in values]


@pytest.mark.parametrize("serializer", list(closed()), ids=lambda found: found.__name__)
def test_a_value_of_another_type_is_refused(serializer):
    """Each member of a body, also in a list."""
    tried = [
        (name, value, serializer(data={name: value}, partial=True))
        for name, field in serializer().fields.items()
        for value in wrong_values(field)
    ]
    assert tried
    assert [
        (name, value) for name, value, bound in tried if bound.is_valid() or name not in bound.errors
    ] == []


def test_the_fault_of_a_value_in_a_list_has_its_place():
    """The type of JSON that is right is named, beside the other faults of the body."""
    names = {found.__name__: found for found in closed()}
    bound = names["NewAccountSerializer"](data={"client_ids": ["a", 1], "ingest": "yes"})
    assert not bound.is_valid()
    assert bound.errors["client_ids"] == {1: ["Write a text, in quotes."]}
    assert bound.errors["ingest"] == ["Write true or false."]
    assert bound.errors["username"] == ["This field is required."]
