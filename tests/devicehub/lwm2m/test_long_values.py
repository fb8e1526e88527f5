"""Long texts and bytes on the pages of values: only their beginnings and lengths are read from the database."""

import re
import tracemalloc
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from devicehub.lwm2m.models import Event, EventResource, Resource, ResourceValue
from devicehub.lwm2m.models.resources import COLUMNS, columns
from devicehub.lwm2m.pages.values import beginnings, shown, shown_of
from devicehub.messages.lwm2m.values import DataType, ObjectLink
from rig.endpoints import endpoint as endpoint

MIB = 1 << 20
EACH = 6  # Long texts, and as many long values of bytes.
MOST_MEMORY = 4 * MIB  # Of a page; all values together have 12 MiB.
WHOLE = re.compile(r'(?<!\()"lwm2m_\w+"\."(text|opaque)"')  # A column outside of a function call.
MODELS = (Resource, ResourceValue, EventResource)
TEXT, BYTES = "2048/0/1", "2048/1/2"
pytestmark = pytest.mark.django_db


def _held(kind, value):
    return dict(zip(COLUMNS, columns(kind, value), strict=True))


@pytest.fixture
def long_events(endpoint):
    """Store long values as the latest ones, in the history, and in an event of a project; return the two events."""
    now = timezone.now()
    ours, alarm = (
        Event.objects.create(device=endpoint, type=name, timestamp=now, received_at=now)
        for name in ("notification", "alarm")
    )
    text, opaque = _held(DataType.STRING, "ü" * MIB), _held(DataType.OPAQUE, bytes(MIB))
    for number in range(EACH):
        for object_instance, resource_id, held in ((0, number + 1, text), (1, number + 1, opaque)):
            value = {
                "device": endpoint,
                "path": f"2048/{object_instance}/{resource_id}",
                "timestamp": now,
                **held,
            }
            Resource.objects.create(
                object_id=2048,
                object_instance=object_instance,
                resource_id=resource_id,
                received_at=now,
                **value,
            )
            ResourceValue.objects.create(event=ours, received_at=now, **value)
            EventResource.objects.create(event=alarm, **value)
    return ours, alarm


def _pages(endpoint, events):
    """Return the addresses of all pages with values, by name."""
    found = {
        "the tree and the history of a text": f"/devices/lwm2m/{endpoint.device_id}/objects/?resource={TEXT}",
        "the tree and the history of bytes": f"/devices/lwm2m/{endpoint.device_id}/objects/?resource={BYTES}",
        "the events": reverse("devicehub:lwm2m_events"),
    }
    for event in events:
        found[f"the event {event.type}"] = reverse("devicehub:lwm2m_event", args=[event.pk])
        found[f"the event {event.type} in the admin"] = reverse("admin:lwm2m_event_change", args=[event.pk])
    for model in MODELS:
        name = f"admin:lwm2m_{model._meta.model_name}"
        found[f"the list of {model.__name__}"] = reverse(f"{name}_changelist")
        for path in (TEXT, BYTES):
            row = model.objects.only("pk").get(path=path)
            found[f"the page of {model.__name__} {path}"] = reverse(f"{name}_change", args=[row.pk])
    return found


@pytest.mark.pages
def test_no_page_reads_a_long_value(admin_client, endpoint, long_events):
    for name, url in _pages(endpoint, long_events).items():
        assert admin_client.get(url).status_code == 200, name
        tracemalloc.start()
        try:
            with CaptureQueriesContext(connection) as sent:
                page = admin_client.get(url).content.decode()
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert taken < MOST_MEMORY, f"{name} takes {taken:,} bytes"
        assert [one["sql"] for one in sent if WHOLE.search(one["sql"])] == [], name
        assert "üüü" in page or "00 00 00" in page, name


def test_pages_say_the_true_lengths(admin_client, endpoint, long_events):
    pages = _pages(endpoint, long_events)
    for name in ("the tree and the history of a text", "the event alarm", "the list of ResourceValue"):
        page = admin_client.get(pages[name]).content.decode()

        assert "1,048,576 characters" in page, name
        assert "1,048,576 bytes" in page, name


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("String", ""),
        ("String", "ü" * 120),
        ("String", "ü" * 121),
        ("String", "水" * 1000),
        ("Corelnk", "</3/0>," * 100),
        ("Opaque", b""),
        ("Opaque", b"\xff"),
        ("Opaque", b"\xc3\xbc" * 12),
        ("Opaque", b"\xc3\xbc\x00" * 500),
        ("Unsigned Integer", 2**64 - 1),
        ("Integer", -(2**63)),
        ("Float", -0.0),
        ("Float", 21.5),
        ("Float", Decimal("-0." + "1234567890" * 9)),
        ("Float", Decimal("0." + "1234567890" * 40)),
        ("Float", Decimal("-0." + "1234567890" * 400)),
        ("Time", Decimal("1700000000.123456789012345678")),
        ("Boolean", False),
        ("Objlnk", ObjectLink(3303, 1)),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_the_beginning_of_a_value_reads_as_the_whole_value(endpoint, kind, value):
    now = timezone.now()
    ResourceValue.objects.create(
        device=endpoint, path=TEXT, timestamp=now, received_at=now, event_id=0, **_held(DataType(kind), value)
    )
    row = beginnings(ResourceValue.objects.all()).get()

    assert shown_of(row) == shown(kind, ResourceValue.objects.get().value)
    assert shown_of(row) == shown(kind, value)
