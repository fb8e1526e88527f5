"""Any bytes on our topics have exactly one outcome, and only values that were sent are stored."""

import json
from datetime import timedelta

import pytest
from django.db import transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message, Outcome
from devicehub.models import QuarantinedMessage
from rig.examples import examples
from rig.messages import DUPLICATE, EARLIER, FAILED, NOW, RETAINED, fresh, iso, readings

a_few_hundred = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=examples(60)
)


# --- Anything at all

NAMES = [
    "temperature", "humidity", "rainfall", "timestamp", "readings", "type", "value", "status",
    "battery_level", "firmware_version", "mode", "opening", "serviced_at", "id", "device", "x", "a\0b",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-50, 120)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["online", "offline", "maintenance", "manual", iso(EARLIER), "25", "NaN", "a\0b"])
    | st.sampled_from([int(EARLIER.timestamp()), int(EARLIER.timestamp() * 1000), 0, 25, 75, 100])
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
        | st.lists(st.fixed_dictionaries({"type": st.sampled_from(NAMES), "value": inner}), max_size=3)
    ),
    max_leaves=12,
)
flat = st.dictionaries(st.sampled_from(NAMES), scalars, max_size=5)
as_json = (documents | flat | st.lists(flat, max_size=3)).map(lambda found: json.dumps(found).encode())


@st.composite
def damaged(draw):
    """Return JSON with one byte replaced, or cut off."""
    body = bytearray(draw(as_json))
    position = draw(st.integers(0, max(0, len(body) - 1)))
    if draw(st.booleans()):
        return bytes(body[:position])
    body[position : position + 1] = draw(st.binary(max_size=2))
    return bytes(body)


bodies = st.binary(max_size=60) | as_json | damaged()
addresses = st.tuples(
    st.sampled_from(["STATION-001", "STATION-002", "VALVE-001", "STRANGER"]),
    st.sampled_from(["data", "data", "status", "reply", "cmd"]),
)


class RolledBack(Exception):
    pass


@a_few_hundred
@given(sent=st.lists(st.tuples(addresses, bodies, st.booleans()), min_size=1, max_size=5))
@example(sent=[(("STATION-001", "data"), b'{"temperature": 1, "a\\u0000b": 1}', False)])
@example(sent=[(("VALVE-001", "status"), b'{"a\\u0000b": 1}', False)])
@example(
    sent=[(("STATION-001", "status"), b"online", False), (("VALVE-001", "status"), b' "OFFLINE"', False)]
)
def test_any_bytes_on_our_topics_end_in_one_outcome_and_store_only_what_was_sent(
    station, neighbour, valve, sent
):
    devices = {device.device_id: device for device in (station, neighbour, valve)}
    messages = [
        Message(
            f"things/{'irrigationvalve' if who == 'VALVE-001' else 'weatherstation'}/{who}/{about}",
            body,
            NOW,
            retain=retain,
        )
        for (who, about), body, retain in sent
    ]
    with pytest.raises(RolledBack), transaction.atomic():
        outcomes = pipeline(messages)

        assert [type(outcome) for outcome in outcomes] == [Outcome] * len(sent)
        assert QuarantinedMessage.objects.count() == outcomes.count(FAILED)
        with_row = [
            who
            for ((who, _), _, _), outcome in zip(sent, outcomes, strict=True)
            if who in devices and outcome not in (DUPLICATE, RETAINED)
        ]
        for device_id, device in devices.items():
            assert device.messages.count() == with_row.count(device_id)
            said = [(about, body) for (who, about), body, _ in sent if who == device_id]
            check_stored(device, said)
        raise RolledBack


def word_alone(body):
    """Return the status that *body* is, as plain text or as a JSON text, or the empty text."""
    text = body.decode("ascii", "replace").removeprefix("\ufffd" * 3).strip()
    return text.strip('"').strip().lower()


def check_stored(device, said):
    """Assert that *device* sent each of its values under that name, as a number, inside the range."""
    declared = registry.of(device).readings
    sent = {about: list(pairs(b for a, b in said if a == about)) for about in ("data", "status")}
    for stored in readings(device):
        assert stored["timestamp"] <= NOW + timedelta(minutes=5)
        for name in declared.keys() & stored.keys():
            numbers = [v for n, v in sent["data"] if n == name and type(v) in (int, float)]
            assert stored[name] in [float(number) for number in numbers]
            low, high = declared[name].range or (None, None)
            assert (low is None or stored[name] >= low) and (high is None or stored[name] <= high)  # noqa: PT018
    sent["status"] += [("status", word_alone(body)) for about, body in said if about == "status"]
    now = fresh(device)
    for name in ("battery_level", "firmware_version", "reported_status", "mode", "opening"):
        if getattr(now, name, None) != getattr(device, name, None):
            key = "status" if name == "reported_status" else name
            assert getattr(now, name) in [v for n, v in sent["status"] if n == key and type(v) is not bool]
    assert now.status not in ("maintenance", "provisioning")
    assert now.is_active


def pairs(bodies):
    """Yield all names with their values, at any depth, of those *bodies* that the standard library can read."""
    for body in bodies:
        found = []

        def collect(members, found=found):
            found += members
            made = dict(members)
            if isinstance(made.get("type"), str) and "value" in made:
                found.append((made["type"], made["value"]))
            return made

        try:
            json.loads(body, object_pairs_hook=collect)
        except ValueError:
            continue
        yield from found
