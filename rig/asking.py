"""Tests of go-auth questions: reply codes, the recorded reasons of denials, and all log records."""

from __future__ import annotations

import logging
from contextlib import contextmanager

from django.db import connection

from authsvc.models import Denial
from authsvc.operation import denials
from fleet.models import WeatherStationDevice

STATIONS = WeatherStationDevice._meta.db_table
OK, DENIED = 200, 403


def reasons():
    """Return the reasons of all recorded denials; a reply never shows them."""
    denials.flush()
    return set(Denial.objects.values_list("reason", flat=True))


def sql(statement, *parameters):
    """Execute *statement* without the ORM."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


async def broken(*_arguments, **_options):
    """Raise RuntimeError, in place of any coroutine."""
    raise RuntimeError("provoked")


@contextmanager
def everything_logged(caplog):
    """Capture the records of all loggers, also of `django`, which the root misses; not those of the HTTP client."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "httpx")
    caplog.handler.setLevel(logging.DEBUG)
    logging.getLogger("django").addHandler(caplog.handler)
    yield
    logging.getLogger("django").removeHandler(caplog.handler)
