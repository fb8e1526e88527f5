"""Pages of rows with long columns, such as payloads of a mebibyte each: a page ends early if its rows are heavy.

The columns are weighed by the database before they are read: JSON takes many times its length in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from django.db.models import F, QuerySet

from devicehub.api import paging
from devicehub.api.paging import Page
from devicehub.history.pages import HEAVIEST, Length


def of_rows(
    rows: QuerySet[Any], order: Sequence[str], cursor: str, limit: int, columns: Sequence[str]
) -> Page:
    """Return a page of *rows* as paging.of_rows() does, with fewer rows if their long *columns* are heavy."""
    weight = sum((Length(F(column)) for column in columns[1:]), start=Length(F(columns[0])))
    light = rows.defer(*columns).annotate(page_row_weight=weight)
    page = paging.of_rows(light, order, cursor, limit)
    at = paging.parse(cursor, len(order))
    read = reversed(page.rows) if at is not None and at.backward else page.rows
    fitting = max(1, sum(total <= HEAVIEST for total in accumulate(row.page_row_weight for row in read)))
    if fitting < len(page.rows):
        page = paging.of_rows(light, order, cursor, fitting)
    found = rows.model._default_manager.filter(pk__in=[row.pk for row in page.rows]).order_by()
    held = {pk: values for pk, *values in found.values_list("pk", *columns)} if page.rows else {}
    for row in page.rows:
        # A row may have been deleted meanwhile.
        for column, value in zip(columns, held.get(row.pk, [None] * len(columns)), strict=True):
            setattr(row, column, value)
    return page
