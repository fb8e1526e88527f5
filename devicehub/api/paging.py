"""Pages of a list by cursor: a page begins behind the last row of the one before, however many rows were added since.

{"next": "https://.../api/denials/?cursor=...", "previous": null, "results": [...]}
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from django.core.exceptions import ValidationError
from django.db.models import DateTimeField, IntegerField, Model, Q, QuerySet
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from devicehub.api.problems import Problem
from devicehub.messages.json_limits import fault_as_json

DEFAULT, MOST = 50, 1_000  # rows of a page
LONGEST_CURSOR = 2_100  # characters; a name of 255 characters that JSON escapes takes 2,046


class Cursor(NamedTuple):
    """A place in a list: the *values* of the columns of its order in the row before it.

    *backward* means the rows before that row instead.
    """

    values: tuple[Any, ...]
    backward: bool = False

    def __str__(self) -> str:
        content = orjson.dumps([int(self.backward), *(_plain(value) for value in self.values)])
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Page(NamedTuple):
    """The rows of one page, and the cursors of the pages before and behind it, or None."""

    rows: list[Any]
    previous: Cursor | None
    next: Cursor | None


def parse(text: str, size: int) -> Cursor | None:
    """Return the cursor in *text* with *size* values; None for an empty text. Raise Problem `invalid-cursor`."""
    if not text:
        return None
    found = _decoded(text) if len(text) <= LONGEST_CURSOR else []
    is_cursor = (
        len(found) == size + 1
        and found[0] in (0, 1)
        and all(isinstance(value, str | int) for value in found)
        and not fault_as_json(found)
    )
    if not is_cursor:
        raise Problem("invalid-cursor")
    backward, *values = found
    return Cursor(tuple(values), backward == 1)


def _decoded(text: str) -> list[Any]:
    """Return the array in *text*; an empty one for anything else."""
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def of_rows(rows: QuerySet[Any], order: Sequence[str], cursor: str, limit: int) -> Page:
    """Return a page of *rows* in *order*, names of columns, each with a `-` in front if it descends.

    Together the columns are unique, and none is null. An index in this order makes each page one short read.
    """
    names = [name.lstrip("-") for name in order]
    at = parse(cursor, len(names))
    if at is not None:
        at = at._replace(values=_typed(rows.model, names, at.values))
        rows = rows.filter(_beyond(order, at))
    if at is not None and at.backward:
        order = [name[1:] if name.startswith("-") else f"-{name}" for name in order]
    found = list(rows.order_by(*order)[: limit + 1])
    return cut(found, at, limit, lambda row: tuple(getattr(row, name) for name in names))


def cut(found: list[Any], at: Cursor | None, limit: int, values: Callable[[Any], tuple[Any, ...]]) -> Page:
    """Return the page of *found*, up to one row more than *limit* from *at* on, in the direction of *at*.

    *values* returns the values of a cursor behind a row.
    """
    has_more, found = len(found) > limit, found[:limit]
    if at is None or not at.backward:
        return Page(
            found,
            Cursor(values(found[0]), backward=True) if found and at is not None else None,
            Cursor(values(found[-1])) if has_more else None,
        )
    found.reverse()
    return Page(
        found,
        Cursor(values(found[0]), backward=True) if has_more else None,
        Cursor(values(found[-1])) if found else None,
    )


def answer(request: Request, page: Page, results: Sequence[Any]) -> dict[str, Any]:
    """Return the answer with *results*, the rows of *page* as they are shown."""
    return {
        "next": _link(request, page.next),
        "previous": _link(request, page.previous),
        "results": results,
    }


def _link(request: Request, cursor: Cursor | None) -> str | None:
    if cursor is None:
        return None
    return str(replace_query_param(request.build_absolute_uri(), "cursor", str(cursor)))


def _beyond(order: Sequence[str], at: Cursor) -> Q:
    """Return the condition of the rows behind *at*, or before it.

    Its first part alone lets the database begin at the right place of an index.
    """
    condition = Q()
    for name, value in reversed(list(zip(order, at.values, strict=True))):
        column = name.lstrip("-")
        word = "lt" if name.startswith("-") is not at.backward else "gt"
        strictly = Q((f"{column}__{word}", value))
        beyond = strictly | (Q((column, value)) & condition) if condition else strictly
        condition = Q((f"{column}__{word}e", value)) & beyond if condition else strictly
    return condition


def _typed(model: type[Model], names: Sequence[str], values: Sequence[Any]) -> tuple[Any, ...]:
    """Return *values* of a cursor as the columns *names* have them. Raise Problem `invalid-cursor`."""
    try:
        return tuple(_of_column(model, name, value) for name, value in zip(names, values, strict=True))
    except (ValidationError, ValueError, TypeError, OverflowError):
        raise Problem("invalid-cursor") from None


def _of_column(model: type[Model], name: str, value: Any) -> Any:
    field = model._meta.pk if name == "pk" else model._meta.get_field(name)
    found = field.to_python(value)  # type: ignore[union-attr]
    if isinstance(field, DateTimeField):
        if not isinstance(found, datetime) or found.tzinfo is None:
            raise ValueError
        found = found.astimezone(UTC)  # OverflowError for a time that no year of UTC has.
    if isinstance(field, IntegerField) and not -(2**63) <= found < 2**63:
        raise ValueError
    return found


def _plain(value: Any) -> Any:
    return (
        value if isinstance(value, int) else value.isoformat() if isinstance(value, datetime) else str(value)
    )


class CursorPages(BasePagination):
    """The form of a page, for the schema."""

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema of an answer whose `results` are *schema*."""
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }

    def get_schema_operation_parameters(self, view: Any) -> list[Any]:
        """Return nothing: the parameters of a page are those of fields.Selected."""
        return []
