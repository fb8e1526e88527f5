"""The object definitions that are shipped, and the choice of a version."""

from __future__ import annotations

import gzip
import subprocess
import sys

import pytest

from devicehub.messages.lwm2m import objects
from devicehub.messages.lwm2m.objects import by_nearness, find, shipped, types
from devicehub.messages.lwm2m.values import DataType
from rig.lwm2m_objects.build import NOTICE, OWN_ORIGIN, is_licensed, notice_of
from rig.serving import ROOT

pytestmark = pytest.mark.sqlite_only

NEEDED = {*range(8), *range(9, 14), 19, 20, 21, *range(3200, 3204), *range(3300, 3351), *range(3410, 3443)}
NEVER_ASSIGNED = {3307, 3309, 3440}
DESCRIBED = {3422, 3441, 3442}


def test_the_objects_that_endpoints_use_are_shipped():
    assert {object_id for object_id, _ in shipped()} >= NEEDED - NEVER_ASSIGNED
    assert not {object_id for object_id, _ in shipped()} & NEVER_ASSIGNED


def test_each_object_has_the_notice_of_its_file_or_says_that_it_is_described():
    described = {key[0] for key, found in shipped().items() if not is_licensed(found)}

    assert described == DESCRIBED
    assert {shipped()[object_id, "1.0"].origin for object_id in DESCRIBED} == {OWN_ORIGIN}
    assert all(found.origin for found in shipped().values())


def test_the_notice_names_the_owner_and_the_licence_of_each_object():
    text = NOTICE.read_text()

    assert text == notice_of(shipped().values())
    assert "\n\n\n" not in text  # Each list of objects has an owner above it.
    assert all(f"{number}/{version}" in text for number, version in shipped() if number not in DESCRIBED)
    assert "the above copyright notice, this list of conditions and the following disclaimer" in " ".join(
        text.split()
    )


def test_the_data_file_has_the_bytes_that_its_definitions_make():
    kept = objects.SHIPPED.read_bytes()

    # The compressed bytes may differ between versions of zlib.
    assert gzip.decompress(objects.pack(shipped().values())) == gzip.decompress(kept)
    assert kept[4:8] == bytes(4)  # No time of the writing.
    assert len(kept) < 150_000


def test_a_definition_is_complete():
    temperature = shipped()[3303, "1.1"]

    assert temperature[:8] == (
        *(
            3303,
            "1.1",
            "Temperature",
            temperature.description,
            "urn:oma:lwm2m:ext:3303:1.1",
            "1.0",
            True,
            False,
        ),
    )
    assert "temperature sensor" in temperature.description
    assert temperature.resources[6] == (
        *(5700, "Sensor Value", DataType.FLOAT, "R", False, True, "", ""),
        "Last or Current Measured Value from the Sensor.",
    )
    assert [resource.resource_id for resource in temperature.resources] == sorted(
        resource.resource_id for resource in temperature.resources
    )


@pytest.mark.parametrize(
    ("object_id", "version", "chosen"),
    [
        (3, None, "1.0"),
        (3, "1.2", "1.2"),
        (3, "1.7", "1.2"),
        (3, "2.0", "1.2"),
        (3336, "1.0", "1.0"),
        (3336, "2.0", "1.1"),
        (21, None, "2.0"),
        (10240, None, None),
    ],
)
def test_a_version_that_is_not_shipped_has_a_substitute(object_id, version, chosen):
    found = find(object_id, version)

    assert (found and found.version) == chosen


def test_versions_are_sorted_by_their_numbers():
    versions = ["1.2", "2.1", "1.10", "3.0"]

    assert by_nearness(versions) == ["1.10", "1.2", "3.0", "2.1"]
    assert by_nearness(versions, "1.2") == ["1.2", "1.10", "3.0", "2.1"]
    assert by_nearness(versions, "7.0") == ["3.0", "2.1", "1.10", "1.2"]
    assert by_nearness([]) == []


def test_types_include_resources_of_other_versions():
    fractional = 6050

    assert fractional not in {resource.resource_id for resource in shipped()[3303, "1.0"].resources}
    assert types(3303, "1.0")[fractional] is DataType.FLOAT
    assert types(3303)[5700] is DataType.FLOAT


def test_executable_and_unknown_resources_have_no_type():
    assert 5605 not in types(3303)
    assert types(10240) == {}
    assert objects.type_of(3, 13) is DataType.TIME
    assert objects.type_of(3, 4) is None


def test_test_objects_have_a_resource_of_each_type():
    first, second = (set(types(object_id).values()) for object_id in (3441, 3442))

    assert second == set(DataType)
    assert second - first == {DataType.UNSIGNED_INTEGER, DataType.CORELNK}


def test_objects_are_read_when_they_are_needed():
    script = (
        "import sys, devicehub.messages.lwm2m.objects as objects\n"
        "print(objects.shipped.cache_info().currsize, 'django' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "0 False\n"
