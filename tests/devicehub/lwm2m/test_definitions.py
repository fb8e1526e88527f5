"""The definitions of objects in the database: shipped, imported, and the values that get their types late."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import pytest

from devicehub.lwm2m import catalogue, definitions, retyping
from devicehub.lwm2m.conversion import retyped
from devicehub.lwm2m.definitions import Outcome
from devicehub.lwm2m.models import Definitions, Endpoint, ObjectType, Resource, ResourceType, ResourceValue
from devicehub.messages.lwm2m.objects import shipped
from devicehub.messages.lwm2m.values import DataType
from rig.messages import STORED, send
from rig.object_files import ITEM, file, item

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

TLV = "application/vnd.oma.lwm2m+tlv"


@pytest.fixture
def endpoint():
    return Endpoint.objects.create(device_id="urn:dev:a")


@pytest.fixture
def pump(tmp_path):
    """Return the function that writes a file of the object 33000, imports it, and returns the outcomes."""

    def write(content: bytes = file(), name: str = "pump.xml"):
        (tmp_path / name).write_bytes(content)
        return [report.outcome for report in definitions.import_files([tmp_path / name])]

    return write


def revision() -> int:
    return Definitions.objects.get().revision


def names() -> dict[int, str]:
    return dict(ResourceType.objects.filter(object__object_id=33000).values_list("resource_id", "name"))


# Shipped definitions


def test_migrate_writes_all_shipped_definitions():
    assert {(row.object_id, row.version) for row in ObjectType.objects.all()} == set(shipped())
    temperature = ResourceType.objects.get(object__object_id=3303, object__version="1.1", resource_id=5700)
    assert (temperature.name, temperature.type, temperature.operations) == ("Sensor Value", "Float", "R")
    assert (
        ObjectType.objects.get(object_id=3441).origin
        == "shipped: described for devicehub from published facts"
    )


def test_a_second_migrate_reads_one_row_and_writes_nothing(django_assert_num_queries):
    before = revision()

    with django_assert_num_queries(2):  # One lists the tables.
        definitions.install()
    assert revision() == before


def test_a_new_data_file_changes_only_rows_that_differ(django_assert_max_num_queries):
    Definitions.objects.update(shipped="of another version")
    changed = ObjectType.objects.filter(object_id=3303)
    changed.update(name="Heat")
    ResourceType.objects.filter(object__in=changed, resource_id=5700).update(unit="F")
    kept = set(ResourceType.objects.values_list("pk", flat=True))

    with django_assert_max_num_queries(20):
        definitions.install()

    assert set(changed.values_list("name", flat=True)) == {"Temperature"}
    assert not ResourceType.objects.filter(unit="F").exists()
    assert set(ResourceType.objects.values_list("pk", flat=True)) == kept


def test_an_imported_definition_stays_when_the_shipped_ones_change(tmp_path):
    own = file(object_id=3303)
    (tmp_path / "own.xml").write_bytes(own)
    list(definitions.import_files([tmp_path]))
    Definitions.objects.update(shipped="of another version")

    definitions.install()

    assert ObjectType.objects.get(object_id=3303, version="1.1").name == "Pump"
    assert ObjectType.objects.get(object_id=3303, version="1.0").name == "Temperature"


def test_values_get_the_types_of_new_shipped_definitions(endpoint):
    ObjectType.objects.filter(object_id=3303).delete()
    catalogue.clear()
    send(endpoint, bytes.fromhex("e4 1644 41a40000"), content_type=f"{TLV};path=/3303/0")
    assert Resource.objects.get().type == "Opaque"
    Definitions.objects.update(shipped="of another version")

    definitions.install()

    assert (Resource.objects.get().type, Resource.objects.get().value) == ("Float", 20.5)


def test_nothing_is_written_before_the_tables_exist(monkeypatch):
    monkeypatch.setattr(Definitions._meta, "db_table", "lwm2m_of_a_later_version")

    definitions.install()


# Imports


def test_an_import_creates_changes_and_keeps(pump):
    first = revision()

    assert pump() == [Outcome.CREATED]
    created = revision()
    assert names() == {5: "Flow"}
    assert ObjectType.objects.get(object_id=33000).origin == "imported: pump.xml"

    assert pump(name="copy.xml") == [Outcome.UNCHANGED]
    assert revision() == created > first

    more = ITEM.replace('"5"', '"6"').replace("Flow", "Level")
    assert pump(file(item(Name="Throughput") + more)) == [Outcome.UPDATED]
    assert names() == {5: "Throughput", 6: "Level"}
    assert revision() > created

    assert pump(file(more)) == [Outcome.UPDATED]
    assert names() == {6: "Level"}


def test_a_restored_backup_reaches_no_revision_that_was_read_before(pump):
    """A process that keeps running compares revisions."""
    Definitions.objects.update(revision=1)
    before = time.time_ns() // 1000

    pump()

    assert revision() >= before


def test_versions_of_an_object_stand_beside_each_other(pump):
    pump()
    pump(file(item(Name="Other"), version="1.2"))

    assert [row.version for row in ObjectType.objects.filter(object_id=33000)] == ["1.1", "1.2"]


def test_a_file_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, content in {
        "a.xml": b"<LWM2M",
        "b.XML": file(),
        "notes.txt": b"not looked at",
        "deep/c.xml": file(object_id=33001),
        "deep/er/d.xml": file(item(Name="Other")),
        "deep/er/e.xml": file(),
        "deep/er/f.xml": file(item(Type="Double"), object_id=33002),
    }.items():
        (tmp_path / name).write_bytes(content)
    with (tmp_path / "huge.xml").open("wb") as huge:
        huge.truncate(1 << 40)  # Without blocks on the disk.

    reports = list(
        definitions.import_files([tmp_path, tmp_path / "b.XML", tmp_path / "none.xml", Path("/dev/null")])
    )

    short = [
        (report.file.removeprefix(f"{tmp_path}/"), report.outcome, report.object_id) for report in reports
    ]
    assert short == [
        ("a.xml", "refused", None),
        ("b.XML", "created", 33000),
        ("huge.xml", "refused", None),
        ("deep/c.xml", "created", 33001),
        ("deep/er/d.xml", "refused", 33000),
        ("deep/er/e.xml", "unchanged", 33000),
        ("deep/er/f.xml", "refused", None),
        ("none.xml", "refused", None),
        ("/dev/null", "refused", None),
    ]
    assert [report.reason for report in reports if report.reason] == [
        "the file is not XML: unclosed token: line 1, column 0",
        "the file has more than 2097152 bytes",
        f"{tmp_path}/b.XML defines this version differently",
        "object 33002, resource 5: 'Double' is not a type of LwM2M",
        "the file cannot be read: No such file or directory",
        "it is not a file that can be read",
    ]
    assert names() == {5: "Flow"}


def test_a_folder_of_too_many_files_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(definitions, "MOST_FILES", 1)
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_bytes(file())

    with pytest.raises(definitions.InvalidObjectXml, match=r"^The folders hold more than 1 files"):
        list(definitions.import_files([tmp_path]))
    assert not names()


# Values that were stored before their object was known


def test_raw_values_and_their_history_get_types_with_the_import(endpoint, pump):
    for payload in ("e4 0005 41a40000", "e4 0005 41a80000"):
        properties = (("path", "/33000/0"),)
        assert send(endpoint, bytes.fromhex(payload), content_type=TLV, user_properties=properties) == STORED
    raw = Resource.objects.get()
    assert (raw.type, raw.resource_type) == ("Opaque", None)

    pump()

    typed = Resource.objects.get()
    assert (typed.type, typed.value, typed.number) == ("Float", 21.0, 21.0)
    assert typed.resource_type.name == "Flow"
    assert sorted(row.value for row in ResourceValue.objects.all()) == [20.5, 21.0]
    assert send(endpoint, b'[{"n":"/33000/0/5","v":22}]') == STORED
    assert Resource.objects.get().value == 22.0


def test_an_import_that_was_stopped_gives_types_when_it_is_repeated(endpoint, pump, monkeypatch):
    send(endpoint, b'[{"n":"/33000/0/5","v":1}]')
    with monkeypatch.context() as patch:
        patch.setattr(retyping, "retype", lambda object_ids: None)
        pump()
    assert Resource.objects.get().resource_type is None

    assert pump() == [Outcome.UNCHANGED]
    assert Resource.objects.get().resource_type.name == "Flow"


def test_a_value_of_another_type_stays_as_it_was_sent(endpoint, pump):
    send(endpoint, b'[{"bn":"/33000/0/","n":"5","vs":"a lot"},{"n":"6","v":1}]')

    pump()

    flow, unknown = Resource.objects.order_by("path")
    assert (flow.type, flow.value, flow.resource_type.name) == ("String", "a lot", "Flow")
    assert (unknown.type, unknown.value, unknown.resource_type) == ("Integer", 1, None)


def test_a_value_has_the_type_of_the_version_that_its_endpoint_names(endpoint, pump):
    endpoint.object_versions = {"33000": "1.2"}
    endpoint.save()
    send(endpoint, b'[{"n":"/33000/0/5","v":1}]')

    pump(file(item(Type="Time"), version="1.2"))
    pump()

    assert Resource.objects.get().resource_type.object.version == "1.2"
    assert Resource.objects.get().type == "Time"


def test_a_resource_that_its_version_lacks_has_the_type_of_another_version(endpoint, pump):
    pump(file(version="1.0"))
    pump(file(ITEM.replace('"5"', '"6"'), version="1.1"))
    endpoint.object_versions = {"33000": "1.1"}
    endpoint.save()

    send(endpoint, bytes.fromhex("c4 05 41a40000"), content_type=f"{TLV};path=/33000/0")

    assert (Resource.objects.get().type, Resource.objects.get().resource_type.object.version) == (
        "Float",
        "1.0",
    )


def test_the_catalogue_is_read_again_after_an_import(pump):
    def known():
        return catalogue.current().find(33000, 5, None)

    before = known()
    pump()
    created = known()
    pump(file(item(Type="Integer")))

    assert before is None
    assert (created.type, known().type) == (DataType.FLOAT, DataType.INTEGER)


@pytest.mark.parametrize(
    ("kind", "held", "declared", "typed"),
    [
        ("Opaque", b"\x05", "Integer", 5),
        ("Opaque", b"\x05\x06\x07", "Integer", None),
        ("Opaque", b"\xff", "String", None),
        ("String", "5", "Unsigned Integer", 5),
        ("String", "</3>", "Corelnk", "</3>"),
        ("String", "3:0", "Objlnk", (3, 0)),
        ("String", "AAE=", "Opaque", b"\x00\x01"),
        ("String", "five", "Float", None),
        ("Integer", 5, "Float", 5.0),
        ("Integer", 5, "Time", 5),
        ("Integer", 5, "Boolean", None),
        ("Unsigned Integer", 2**64 - 1, "Integer", None),
        ("Float", 1.5, "Integer", None),
        ("Float", Decimal("2.00"), "Integer", 2),
        ("Boolean", True, "Integer", None),
    ],
)
def test_a_raw_value_is_read_as_one_of_its_type(kind, held, declared, typed):
    expected = None if typed is None else (declared, typed)

    assert retyped(kind, held, DataType(declared)) == expected
