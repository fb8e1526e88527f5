"""Objects that are imported while messages with values of them are on their way: no value stays without its type."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from devicehub.ingest import pipeline as pipelines
from devicehub.ingest import store
from devicehub.lwm2m import catalogue, definitions, events, retyping
from devicehub.lwm2m.events import EventType
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, EventResource, Resource, ResourceType, ResourceValue
from rig.messages import PARTIAL, STORED, send
from rig.object_files import file, item

OTHER = item(Name="Level").replace('ID="5"', 'ID="6"')
PATIENCE = 0.5  # Seconds in which an import that does not wait would be complete.


@pytest.fixture(autouse=True)
def endpoint(transactional_db):
    """Create our endpoint; the definitions are those of this test."""
    catalogue.clear()
    yield Endpoint.objects.create(device_id="urn:dev:a")
    catalogue.clear()


@pytest.fixture
def import_pump(tmp_path):
    """Return the function that imports the object 33000, of which nothing is known before."""

    def run(content: bytes = file(item() + OTHER)):
        (tmp_path / "pump.xml").write_bytes(content)
        list(definitions.import_files([tmp_path / "pump.xml"]))

    return run


@pytest.fixture
def at_stage(monkeypatch):
    """Return the function that has a function called once, when a batch reaches a stage."""

    def once(module, stage, act):
        reached = []

        def reach(name):
            if name == stage and not reached:
                reached.append(name)
                act()

        monkeypatch.setattr(module, "reach", reach)

    return once


def flow(endpoint, number=5, content="41a40000"):
    """Send a flow, of 20.5 unless *content* is another one, in TLV, which names no type."""
    payload = bytes.fromhex(f"c4 {number:02x} {content}")
    options = {"content_type": "application/vnd.oma.lwm2m+tlv", "user_properties": (("path", "/33000/0"),)}
    return send(endpoint, payload, **options)


def in_a_thread(act):
    """Start *act* in a thread with a database connection of its own; return the thread."""

    def run():
        try:
            act()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_batch_that_was_read_before_an_import_is_written_with_its_types(endpoint, import_pump, at_stage):
    at_stage(pipelines, "judged", import_pump)

    assert flow(endpoint) == STORED

    latest, kept = Resource.objects.get(), ResourceValue.objects.get()
    assert (latest.value, kept.value, kept.number, latest.resource_type.name) == (20.5, 20.5, 20.5, "Flow")


def test_a_batch_is_compared_with_the_definitions_of_its_own_thread(endpoint, import_pump, at_stage):
    """Another thread of the process may have read the new ones meanwhile."""

    def import_and_read():
        import_pump()
        in_a_thread(KIND.inbox.prepare).join(30)

    at_stage(pipelines, "judged", import_and_read)

    assert flow(endpoint) == STORED
    assert ResourceValue.objects.get().value == 20.5


def test_a_value_that_the_new_definition_contradicts_has_its_note(endpoint, import_pump, at_stage):
    at_stage(pipelines, "judged", lambda: import_pump(file(item(Type="Boolean"))))

    assert flow(endpoint) == PARTIAL
    assert endpoint.messages.get().notes[0].startswith("/33000/0/5: ")
    assert Resource.objects.get().value == bytes.fromhex("41a40000")


def test_a_resource_that_an_import_removes_meanwhile_keeps_its_value(endpoint, import_pump, at_stage):
    """The row of its definition is gone, so no value may refer to it."""
    import_pump()
    at_stage(pipelines, "judged", lambda: import_pump(file(OTHER)))

    assert flow(endpoint) == STORED

    latest = Resource.objects.get()
    assert (latest.value, latest.resource_type) == (bytes.fromhex("41a40000"), None), "as it was sent"
    assert not ResourceType.objects.filter(object__object_id=33000, resource_id=5).exists()


def test_an_import_waits_for_a_batch_that_is_being_written(endpoint, import_pump, at_stage):
    """Otherwise its values would be committed without types after the import has given all others theirs."""
    imports, waited = [], []

    def begin():
        imports.append(in_a_thread(import_pump))
        imports[0].join(PATIENCE)
        waited.append(imports[0].is_alive())

    at_stage(store, "written", begin)

    assert flow(endpoint) == STORED
    imports[0].join(30)

    assert waited == [True]
    assert (Resource.objects.get().value, ResourceValue.objects.get().value) == (20.5, 20.5)


def test_an_event_that_is_composed_while_values_get_types_has_them_too(
    endpoint, import_pump, at_stage, monkeypatch
):
    """One of its values is a copy from the history, where it had no type at that moment."""
    flow(endpoint, content="3c2f333e")
    with monkeypatch.context() as patch:
        patch.setattr(retyping, "retype", lambda object_ids: None)
        import_pump(file(item(Type="Corelnk") + OTHER))
    threads = []

    def give_types():
        threads.append(in_a_thread(lambda: retyping.retype([33000])))
        threads[0].join(PATIENCE)

    at_stage(store, "written", give_types)
    events.register(EventType("both", resources=["33000/0/5", "33000/0/6"], within=86_400))
    try:
        assert flow(endpoint, 6) == STORED
        threads[0].join(30)
    finally:
        events.unregister("both")

    for model in (EventResource, ResourceValue):
        assert {row.path: row.value for row in model.objects.all()} == {
            "33000/0/5": "</3>",
            "33000/0/6": 20.5,
        }
