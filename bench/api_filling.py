"""`python -m bench.api_filling` adds to a filled database what `script/bench api` reads, and prints names and keys.

These are an administrator with a key, keys of some stations, the rollups of a part of the stations, a station with
many readings that are not rolled up, and rows of every list.
"""

from __future__ import annotations

import json
import secrets
import sys
from datetime import timedelta
from typing import Any

import django
from django.db import connection

from bench.devices import DEVICE_ID
from bench.filling import READINGS

ROLLED_UP = 5_000  # stations whose readings have rollups
CALLED = 200  # stations that requests are about
DENSE = 10_000  # readings of one station, one a minute
POSTING = 8  # stations that post, each over a connection of its own
ROWS = 2_000  # in each list
ENDPOINTS, VALUES = 1_000, 20
NAMES = ("temperature", "humidity", "rainfall")

START = {
    "sqlite": {
        "hour": "substr(timestamp, 1, 13) || ':00:00'",
        "day": "substr(timestamp, 1, 10) || ' 00:00:00'",
    },
    "postgresql": {
        "hour": "date_trunc('hour', timestamp, 'UTC')",
        "day": "date_trunc('day', timestamp, 'UTC')",
    },
}
DENSE_ROWS = {
    "sqlite": """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
INSERT INTO {table} (device_id, timestamp, received_at, temperature, humidity, rainfall)
SELECT {device}, strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || ({count} - n) || ' minutes') || '000',
  strftime('%Y-%m-%d %H:%M:%f', 'now') || '000', n % 300 / 10.0, n % 90 + 5.5, n % 40 / 10.0 FROM numbers""",
    "postgresql": """
INSERT INTO {table} (device_id, timestamp, received_at, temperature, humidity, rainfall)
SELECT {device}, now() - ({count} - n) * interval '1 minute', now(), n % 300 / 10.0, n % 90 + 5.5, n % 40 / 10.0
FROM generate_series(1, {count}) AS n ORDER BY n""",
}


def fill(count: int) -> dict[str, Any]:
    """Add the rows to a database with *count* stations, whose keys are 1 to *count*. Return names and keys."""
    from devicehub.kinds.registry import registry
    from devicehub.models import digest_api_key

    kind = registry.get("weatherstation")
    assert kind is not None
    rolled_up = min(count, ROLLED_UP)
    _roll_up(rolled_up)
    step = max(1, rolled_up // CALLED)
    stations = [DEVICE_ID.format(number) for number in range(1, rolled_up + 1, step)][:CALLED]
    dense = count
    with connection.cursor() as cursor:
        statement = DENSE_ROWS[connection.vendor]
        cursor.execute(statement.format(table=READINGS, device=dense, count=DENSE))
    posting = []
    for device in kind.device_model.objects.order_by("pk")[: min(POSTING, count)]:
        key = secrets.token_urlsafe(32)
        kind.device_model.objects.filter(pk=device.pk).update(api_key=digest_api_key(key))
        posting.append({"device_id": device.device_id, "key": key})
    _records(kind, stations)
    endpoints = _endpoints()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return {
        "key": _key(),
        "posting": posting,
        "names": {
            "station": stations,
            "commanded": stations[:1],
            "dense": [DEVICE_ID.format(dense)],
            "endpoint": endpoints,
        },
    }


def _roll_up(count: int) -> None:
    """Write the rollups of the first *count* stations, which the filling left out."""
    key = "'weatherstation/STATION-' || " + (
        "printf('%07d', device_id)" if connection.vendor == "sqlite" else "lpad(device_id::text, 7, '0')"
    )
    with connection.cursor() as cursor:
        for period, start in START[connection.vendor].items():
            for name in NAMES:
                cursor.execute(
                    "INSERT INTO devicehub_rollup (device_key, name, period, start, low, high, mean, count)"
                    f" SELECT {key}, '{name}', '{period}', {start}, min({name}), max({name}), avg({name}),"
                    f" count({name})"
                    f" FROM {READINGS} WHERE device_id <= {count} AND {name} IS NOT NULL"
                    f" GROUP BY device_id, {start} ORDER BY device_id, {start}"
                )


def _key() -> str:
    """Return a new key of a new administrator."""
    from devicehub import api_keys
    from rig.programs import person

    return api_keys.create(person("bench"), "bench", list(api_keys.SCOPES)).secret


def _records(kind: Any, stations: list[str]) -> None:
    """Write ROWS rows of the tables behind the lists; those of stations are of all *stations* in turn."""
    from django.utils import timezone

    from authsvc import audit
    from authsvc.models import Account, Denial, Grant
    from devicehub.models import CommandState, DeviceCommand, QuarantinedMessage

    now = timezone.now()
    keys = [kind.key(stations[number % len(stations)]) for number in range(ROWS)]
    DeviceCommand.objects.bulk_create(
        DeviceCommand(device_key=key, name="reboot", state=CommandState.ANSWERED, due_at=None, queued_at=now)
        for key in keys
    )
    Denial.objects.bulk_create(
        Denial(
            dialect="go-auth",
            username=f"user{number}",
            principal=key,
            action="publish",
            topic=f"things/{number}",
            reason="no_grant",
            first_at=now,
            last_at=now - timedelta(seconds=number),
        )
        for number, key in enumerate(keys)
    )
    QuarantinedMessage.objects.bulk_create(
        QuarantinedMessage(
            reason="not_json",
            topic=f"things/{key}/data",
            payload=b"{",
            device_key=key,
            received_at=now - timedelta(seconds=number),
            size=1,
        )
        for number, key in enumerate(keys)
    )
    Grant.objects.bulk_create(
        Grant(subject=f"key:{key}", actions="publish", filter=f"plant/{number}")
        for number, key in enumerate(keys)
    )
    Account.objects.bulk_create(Account(username=f"account-{number}") for number in range(ROWS // 10))
    for number, key in enumerate(keys):
        audit.record("device_changed", key, after={"name": f"name {number}"})


def _endpoints() -> list[str]:
    """Create ENDPOINTS endpoints with an event, VALUES values and the latest one; return some of their ids."""
    from django.utils import timezone

    from devicehub.lwm2m.models import Endpoint, Event, Resource, ResourceValue

    now = timezone.now()
    Endpoint.objects.bulk_create(
        Endpoint(
            device_id=f"urn:bench:{number:05}",
            endpoint_name=f"urn:bench:{number:05}",
            mqtt_username=f"bench-{number}",
        )
        for number in range(ENDPOINTS)
    )
    endpoints: list[Any] = list(Endpoint.objects.order_by("pk"))
    events = Event.objects.bulk_create(
        Event(device=endpoint, type="notification", timestamp=now, received_at=now) for endpoint in endpoints
    )
    held = {"path": "3303/0/5700", "type": "Float", "received_at": now}
    ResourceValue.objects.bulk_create(
        (
            ResourceValue(
                device_id=event.device_id,
                event=event,
                timestamp=now - timedelta(minutes=number),
                number=20 + number / 10,
                **held,
            )
            for event in events
            for number in range(VALUES)
        ),
        batch_size=1_000,
    )
    Resource.objects.bulk_create(
        Resource(
            device=endpoint,
            timestamp=now,
            number=20.0,
            object_id=3303,
            object_instance=0,
            resource_id=5700,
            **held,
        )
        for endpoint in endpoints
    )
    return [endpoint.device_id for endpoint in endpoints[:CALLED]]


if __name__ == "__main__":
    django.setup()
    json.dump(fill(int(sys.argv[1])), sys.stdout)
