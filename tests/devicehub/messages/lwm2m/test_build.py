"""The tool that writes the shipped object definitions."""

from __future__ import annotations

import zipfile

import pytest

from devicehub.messages.lwm2m import objects
from rig.lwm2m_objects import build
from rig.object_files import file, item

pytestmark = pytest.mark.sqlite_only

LICENCE = f"Copyright 2026 Pumps.\n{build.PERMISSION} are permitted.\n{build.DISCLAIMER} HOLDER BE LIABLE."


def archive(path, files):
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return str(path)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Return the function that writes the files of JARs, and returns their definitions and the text of NOTICE."""
    data, notice = tmp_path / "objects.json.gz", tmp_path / "NOTICE"
    monkeypatch.setattr(build, "SHIPPED", data)
    monkeypatch.setattr(build, "NOTICE", notice)
    monkeypatch.setattr(objects, "SHIPPED", data)

    def write(*archives):
        assert build.main(list(archives)) == 0
        return objects.shipped.__wrapped__(), notice.read_text()

    return write


def test_only_files_with_the_licence_are_written_and_the_first_archive_counts(tmp_path, written):
    first = archive(
        tmp_path / "first.jar",
        {
            "models/33000.xml": file(comment=LICENCE),
            "models/33001.xml": file(comment="Copyright 2026 Pumps. All rights reserved.", object_id=33001),
            "other/33002.xml": file(comment=LICENCE, object_id=33002),
        },
    )
    second = archive(
        tmp_path / "second.jar",
        {
            "models/33000.xml": file(item(Name="Other"), comment=LICENCE),
            "models/33000-1_2.xml": file(comment=LICENCE, version="1.2"),
        },
    )

    found, notice = written(first, second)

    licensed = {key: definition for key, definition in found.items() if definition.notice}
    assert [*licensed] == [(33000, "1.1"), (33000, "1.2")]
    assert found[33000, "1.1"].resources[0].name == "Flow"
    assert found[33000, "1.1"].origin == "first, models/33000.xml"
    assert found[33000, "1.2"].notice == LICENCE
    assert "\nCopyright 2026 Pumps.\n\n    33000/1.1, 33000/1.2\n\nRedistribution and use" in notice
    assert {key[0] for key in found} - {33000} == {3422, 3441, 3442}


def test_a_second_run_writes_the_same_bytes(tmp_path, written):
    jar = archive(tmp_path / "one.jar", {"models/33000.xml": file(comment=LICENCE)})

    written(jar)
    before = build.SHIPPED.read_bytes()
    written(jar)

    assert build.SHIPPED.read_bytes() == before
