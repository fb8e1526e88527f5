"""Rows of a device in every table: store them, roll them up, prune them, count them."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from authsvc.models import Denial, Grant
from devicehub.history import rollups
from devicehub.models import DeviceCommand, QuarantinedMessage, RetainedTopic, Rollup
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading

DAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOURS, DAYS = Rollup.Period.HOUR, Rollup.Period.DAY


def measure(device, *points):
    """Store readings, each a time and a temperature, in their order, and return their rows."""
    return WeatherStationReading.objects.bulk_create(
        WeatherStationReading(device=device, timestamp=moment, temperature=value, received_at=timezone.now())
        for moment, value in points
    )


def roll_up():
    """Roll up all rows."""
    while rollups.roll_up():
        pass


def figures(period=HOURS, name="temperature", key="weatherstation/STATION-001"):
    """Return the rollups of a reading as {start: (low, high, mean, count)}."""
    rows = Rollup.objects.filter(device_key=key, name=name, period=period)
    return {r.start: (r.low, r.high, pytest.approx(r.mean), r.count) for r in rows}


def prune(*arguments, slug="weatherstation"):
    """Run `prune_telemetry` for a kind with --json and return its report by table."""
    out = StringIO()
    call_command("prune_telemetry", slug, "--json", *arguments, stdout=out, stderr=StringIO())
    return {one["what"]: one for one in json.loads(out.getvalue())[slug]}


def sql(statement):
    """Execute *statement* and return its rows, if it has some."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


def fill(device, number=30):
    """Store rows of *device* in every table."""
    key, now = f"weatherstation/{device.device_id}", timezone.now()
    measure(device, *[(DAY + n * HOUR, float(n)) for n in range(number)])
    WeatherStationMessage.objects.bulk_create(
        WeatherStationMessage(device=device, topic=f"{n}") for n in range(number)
    )
    roll_up()
    QuarantinedMessage.objects.create(reason="x", topic="t", payload=b"", device_key=key, received_at=now)
    DeviceCommand.objects.create(device_key=key, name="reboot")
    DeviceCommand.objects.create(device_key=key, name="reboot", state="answered", answered_at=now)
    Grant.objects.create(subject=f"key:{key}", actions="publish", filter="plant/x")
    for principal, client in ((key, "a"), ("", "b")):
        Denial.objects.create(
            dialect="emqx",
            username=device.mqtt_username,
            client_id=client,
            principal=principal,
            action="publish",
            topic="t",
            reason="no_grant",
            first_at=now,
            last_at=now,
        )


def remains(device):
    """Return the number of rows of *device* in each table."""
    key = f"weatherstation/{device.device_id}"
    return {
        "device": WeatherStationDevice.objects.filter(device_id=device.device_id).count(),
        "readings": WeatherStationReading.objects.filter(device_id=device.pk).count(),
        "messages": WeatherStationMessage.objects.filter(device_id=device.pk).count(),
        "rollups": Rollup.objects.filter(device_key=key).count(),
        "quarantine": QuarantinedMessage.objects.filter(device_key=key).count(),
        "commands": DeviceCommand.objects.filter(device_key=key).count(),
        "grants": Grant.objects.filter(subject=f"key:{key}").count(),
        "denials": Denial.objects.filter(username=device.mqtt_username).count(),
    }


def topics_to_clear():
    """Return the topics whose retained message is yet to be cleared."""
    return sorted(RetainedTopic.objects.values_list("topic", flat=True))


TOPICS = [f"things/weatherstation/STATION-001/{about}" for about in ("cmd", "data", "reply", "status")]
