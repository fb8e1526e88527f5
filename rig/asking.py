"""Questions as go-auth asks them, the reasons that denials are recorded with, and what is logged meanwhile."""

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
    """Every reason that a question was refused for, of which nothing shows on the wire."""
    denials.flush()
    return set(Denial.objects.values_list("reason", flat=True))


def sql(statement, *parameters):
    """Change the database behind the back of the ORM."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


async def broken(*_arguments, **_options):
    raise RuntimeError("provoked")


@contextmanager
def everything_logged(caplog):
    """Also what Django's logger keeps from the root's handlers; not what the asking side logs."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "httpx")
    caplog.handler.setLevel(logging.DEBUG)
    logging.getLogger("django").addHandler(caplog.handler)
    yield
    logging.getLogger("django").removeHandler(caplog.handler)
