"""Payloads with a time of their own are stored once, and others are new each time."""

import json
from datetime import timedelta

import cbor2
import pytest

from devicehub import Reading
from devicehub.messages import decode
from rig.meter import DUPLICATE, EPOCH, NOW, PARTIAL, RETAINED, STORED, item, send, stored

pytestmark = pytest.mark.sqlite_first  # test_duplicates.py has the SQL.

# --- Duplicates and retained messages


DATED = {
    "a pack with a time": json.dumps([{"n": "amount", "v": 1, "t": EPOCH - 60}]).encode(),
    "a pack with a base time": cbor2.dumps([{-3: EPOCH - 60}, {0: "amount", 2: 1}]),
    "one of its records": json.dumps(
        [{"n": "amount", "v": 1, "t": -5}, {"n": "count", "v": 1, "t": EPOCH}]
    ).encode(),
    "a map with a time": cbor2.dumps({"amount": 1, "timestamp": EPOCH - 60}),
    "a map with a date": item("a2 % % % c1 %", "amount", 1, "timestamp", EPOCH),
    "a time given twice": b'{"amount": 1, "timestamp": 5, "timestamp": %d}' % EPOCH,
}
UNDATED = {
    "a pack": b'[{"n": "amount", "v": 1}]',
    "a pack that counts from now": b'[{"n": "amount", "v": 1, "t": -60}]',
    "a pack of now": b'[{"n": "amount", "v": 1, "t": 0}]',
    "a pack with a bad time": b'[{"n": "amount", "v": 1, "t": 1e300}]',
    "a map": cbor2.dumps({"amount": 1}),
}


@pytest.mark.parametrize("body", DATED.values(), ids=DATED)
def test_a_payload_that_names_its_moment_is_stored_once(meter, body):
    first = send(body)
    rows = stored(meter)

    assert first in (STORED, PARTIAL)
    assert send(body, at=NOW + timedelta(seconds=30)) is DUPLICATE
    assert send(body, retain=True) is DUPLICATE
    assert stored(meter) == rows
    assert meter.messages.count() == 1


@pytest.mark.parametrize("body", UNDATED.values(), ids=UNDATED)
def test_a_payload_that_names_no_moment_is_news_each_time(meter, body):
    assert send(body) in (STORED, PARTIAL)
    assert send(body, at=NOW + timedelta(minutes=1)) in (STORED, PARTIAL)
    assert send(body, retain=True) is RETAINED
    assert len(stored(meter)) == 2


def test_a_type_that_declares_n_has_flat_samples():
    """`n` is then the name of a reading, and a pack needs its content type."""
    found = decode.Document([{"n": "x", "v": 1}])

    [sample] = decode.samples(found, NOW, {"n": Reading(type="string"), "v": Reading()}).samples
    assert sample.values == {"n": "x", "v": 1}
