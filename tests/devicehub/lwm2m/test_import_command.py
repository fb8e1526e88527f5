"""`manage.py import_lwm2m_objects`."""

from __future__ import annotations

import io
import json
import os
import stat
import sys

import pytest
from django.core.management import CommandError, call_command

from devicehub.lwm2m import definitions
from devicehub.lwm2m.models import ObjectType
from rig.object_files import file, item

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a good file and a bad one."""
    (tmp_path / "bad.xml").write_bytes(b"<html/>")
    (tmp_path / "pump.xml").write_bytes(file())
    return tmp_path


def run(*arguments) -> tuple[str, int]:
    """Return what the command prints, and its exit code."""
    out = io.StringIO()
    try:
        call_command("import_lwm2m_objects", *map(str, arguments), stdout=out)
    except SystemExit as ended:
        return out.getvalue(), ended.code
    return out.getvalue(), 0


def test_each_object_is_a_line_and_a_refused_file_ends_with_1(folder):
    assert run(folder) == (
        f"refused {folder}/bad.xml: the root element is 'html', not LWM2M\n"
        f"created 33000 1.1 Pump ({folder}/pump.xml)\n"
        "1 created, 0 updated, 0 unchanged, 1 refused\n",
        1,
    )
    assert run(folder / "pump.xml") == (
        f"unchanged 33000 1.1 Pump ({folder}/pump.xml)\n0 created, 0 updated, 1 unchanged, 0 refused\n",
        0,
    )


def test_json_has_all_results(folder):
    printed, code = run("--json", folder)

    assert code == 1
    assert json.loads(printed) == [
        {
            "file": f"{folder}/bad.xml",
            "outcome": "refused",
            "object_id": None,
            "version": "",
            "name": "",
            "reason": "the root element is 'html', not LWM2M",
        },
        {
            "file": f"{folder}/pump.xml",
            "outcome": "created",
            "object_id": 33000,
            "version": "1.1",
            "name": "Pump",
            "reason": "",
        },
    ]


def test_a_terminal_shows_a_table_with_refused_files_first(folder, monkeypatch):
    (folder / "a.xml").write_bytes(
        file(object_id=33001).replace(b">Pump<", b">[red]Pump\xc2\x9b\xe2\x80\xae<")
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    rows = [line for line in run(folder)[0].splitlines() if "xml" in line]

    assert [row.split("│")[1].strip() for row in rows] == ["", "33001", "33000"]
    assert "refused: the root element is 'html', not LWM2M" in rows[0]
    assert "│ [red]Pump " in rows[1]


def test_an_empty_folder_is_no_error_and_no_path_is_one(tmp_path):
    assert run(tmp_path) == ("0 created, 0 updated, 0 unchanged, 0 refused\n", 0)
    with pytest.raises(CommandError, match="the following arguments are required: path"):
        run()


def test_too_many_files_are_one_line(folder, monkeypatch):
    monkeypatch.setattr(definitions, "MOST_FILES", 1)

    with pytest.raises(CommandError, match=r"^The folders hold more than 1 files: import fewer at a time$"):
        run(folder)
    assert not ObjectType.objects.filter(object_id=33000).exists()


@pytest.mark.parametrize("named", ["the folder", "the files"])
def test_special_files_are_refused_at_once(folder, named):
    """A pipe would wait for a writer; a device, and some files of the kernel, have no end."""
    os.mkfifo(folder / "pipe.xml")
    endless = ("/dev/zero", "/proc/self/pagemap")
    for number, path in enumerate(path for path in endless if os.path.exists(path)):
        (folder / f"special{number}.xml").symlink_to(path)

    printed, code = run(*([folder] if named == "the folder" else sorted(folder.iterdir())))

    *lines, summary = printed.splitlines()
    assert (code, summary) == (1, f"1 created, 0 updated, 0 unchanged, {len(lines) - 1} refused")
    assert [line for line in lines if "pipe" in line] == [
        f"refused {folder}/pipe.xml: it is not a file that can be read"
    ]
    assert all(line.startswith(("refused ", "created ")) and line.count(f"{folder}/") == 1 for line in lines)


@pytest.mark.parametrize(
    ("looks_regular", "reason"),
    [
        ([True, False], "it is not a file that can be read"),
        ([True, True], "the file cannot be read: it has nothing to read yet"),
    ],
    ids=["became a pipe", "waits like /proc/kmsg"],
)
def test_a_file_that_only_looks_regular_is_refused_too(folder, monkeypatch, looks_regular, reason):
    os.mkfifo(folder / "pipe.xml")
    silent = os.open(folder / "pipe.xml", os.O_RDWR)
    monkeypatch.setattr(stat, "S_ISREG", lambda _: looks_regular.pop(0))

    assert run(folder / "pipe.xml")[0].startswith(f"refused {folder}/pipe.xml: {reason}\n")
    os.close(silent)


@pytest.mark.skipif(
    not os.path.exists("/proc/self/pagemap"), reason="it needs a file of the kernel without an end"
)
def test_a_file_without_an_end_is_read_up_to_the_largest_size():
    assert run("/proc/self/pagemap")[0].startswith(
        "refused /proc/self/pagemap: the file has more than 2097152 bytes\n"
    )


def test_too_many_folders_are_one_line(folder, monkeypatch):
    monkeypatch.setattr(definitions, "MOST_FOLDERS", 1)
    (folder / "deeper").mkdir()

    with pytest.raises(CommandError, match=r"holds more than 1 folders: name the folders with the files$"):
        run(folder)
    assert not ObjectType.objects.filter(object_id=33000).exists()


def test_a_name_that_no_database_stores_is_changed(tmp_path):
    name = "pump\udcff.xml"
    (tmp_path / name).write_bytes(file(item(Name="Flow")))

    assert run(tmp_path)[0].startswith(f"created 33000 1.1 Pump ({tmp_path}/pump?.xml)")
    assert ObjectType.objects.get(object_id=33000).origin == "imported: pump?.xml"
