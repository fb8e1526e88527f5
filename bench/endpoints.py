"""`python -m bench.endpoints` fills the database in its environment with LwM2M endpoints and their latest values.

With --measure it reads the latest values of endpoints instead, one endpoint at a time, and prints how long that took.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from typing import Any

import django
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

ENDPOINT_ID = "ENDPOINT-{:07d}"
NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < %(count)s)",
    "postgresql": "WITH numbers AS (SELECT n FROM generate_series(2, %(count)s) AS n)",
}
NEXT_ID = {
    "sqlite": "printf('ENDPOINT-%%07d', n)",
    "postgresql": "'ENDPOINT-' || lpad(n::text, 7, '0')",
}
PATHS = [f"{object_id}/0/{resource}" for object_id in (3, 3303, 3304, 3315) for resource in (0, 1, 5700)]
READS = 500  # endpoints whose values are read, drawn at random

LATEST = """
INSERT INTO lwm2m_resource (device_id, path, type, number, object_id, object_instance, resource_id, timestamp,
  received_at) SELECT device.id, %(path)s, 'Float', 21.5, %(object)s, 0, %(resource)s, device.created_at,
  device.created_at FROM lwm2m_endpoint AS device"""


def fill(count: int) -> None:
    """Create *count* endpoints, each with a value of every path in PATHS."""
    endpoint: Any = apps.get_model("lwm2m", "Endpoint")
    first = endpoint.objects.create(device_id=ENDPOINT_ID.format(1))
    names = [field.column for field in endpoint._meta.concrete_fields if field.name != "id"]
    own = {"device_id": "", "endpoint_name": "", "mqtt_username": "lwm2m-endpoint-"}
    copied = ", ".join(
        f"'{own[name]}' || {NEXT_ID[connection.vendor]}" if name in own else name for name in names
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"{NUMBERS[connection.vendor]} INSERT INTO lwm2m_endpoint ({', '.join(names)})"
            f" SELECT {copied} FROM lwm2m_endpoint, numbers WHERE id = %(key)s",
            {"key": first.pk, "count": count},
        )
    with connection.cursor() as cursor:
        for path in PATHS:
            object_id, _, resource_id = map(int, path.split("/"))
            cursor.execute(LATEST, {"path": path, "object": object_id, "resource": resource_id})
        cursor.execute("ANALYZE" if connection.vendor == "sqlite" else "VACUUM ANALYZE")


def measure() -> dict[str, Any]:
    """Return the milliseconds that the latest values of one endpoint took, and the most queries."""
    resource: Any = apps.get_model("lwm2m", "Resource")
    keys = list(apps.get_model("lwm2m", "Endpoint").objects.order_by("pk").values_list("pk", flat=True))
    spent, queries = [], 0
    for key in random.sample(keys, min(READS, len(keys))):
        with CaptureQueriesContext(connection) as captured:
            began = time.perf_counter()
            found = {one.path: (one.value, one.timestamp) for one in resource.objects.filter(device=key)}
            spent.append((time.perf_counter() - began) * 1_000)
        queries = max(queries, len(captured))
        if len(found) < len(PATHS):
            raise SystemExit(f"endpoint {key} has {len(found)} values, and {len(PATHS)} were written")
    spent.sort()
    return {
        "endpoints": len(keys),
        "values": len(PATHS),
        "queries": queries,
        "median_ms": round(statistics.median(spent), 2),
        "p99_ms": round(spent[int(len(spent) * 0.99)], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.endpoints", description=__doc__)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--measure", action="store_true")
    arguments = parser.parse_args()
    django.setup()
    if arguments.count:
        fill(arguments.count)
    json.dump(measure() if arguments.measure else {}, sys.stdout)


if __name__ == "__main__":
    main()
