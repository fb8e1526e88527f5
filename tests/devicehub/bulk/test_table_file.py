"""Uploaded tables: what spreadsheets write is read, and what would harm is refused before it does."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import openpyxl
import pytest

from devicehub.bulk import table_file, xlsx_package
from devicehub.bulk.issued import COLUMNS, CsvFile
from devicehub.bulk.xlsx_package import UnreadableTable

pytestmark = pytest.mark.sqlite_only


def rows(content: bytes) -> list[list[str]]:
    return [cells for _, cells in table_file.read(io.BytesIO(content))]


def workbook(*lines: list[Any]) -> bytes:
    book = openpyxl.Workbook()
    for line in lines:
        book.active.append(line)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def repacked(content: bytes, **parts: bytes) -> bytes:
    """Return the package *content* with other files; `xl_styles` names xl/styles.xml."""
    names = {f"{name.replace('_', '/')}.xml": data for name, data in parts.items()}
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as before,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as to,
    ):
        for name in before.namelist():
            to.writestr(name, names.pop(name, None) or before.read(name))
        for name, data in names.items():
            to.writestr(name, data)
    return file.getvalue()


def sheet(data: str, doctype: str = "") -> bytes:
    namespace = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    root = f'<worksheet xmlns="{namespace}"><sheetData>{data}</sheetData></worksheet>'
    return f'<?xml version="1.0"?>{doctype}{root}'.encode()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
def test_csv_of_any_spreadsheet_is_read(separator, encoding):
    lines = ["device_id,name,site", 'A-1,"Säule, 1",Nord', "", "A-2,,"]
    text = "\r\n".join(line.replace(",", separator) for line in lines)

    found = rows(text.encode(encoding))

    assert found == [["device_id", "name", "site"], ["A-1", f"Säule{separator} 1", "Nord"], ["A-2"]]


def test_a_cell_of_our_own_files_is_read_as_it_was():
    cells = ["-A-1", "=1+1", "+north", "'t Hof"]

    found = rows(CsvFile().piece([dict(zip(COLUMNS, cells, strict=False))]).encode())

    assert found[0] == cells


def test_many_rows_may_be_longer_than_one():
    assert len(rows((b"a" * 900 + b"\n") * 200)) == 200


def test_lines_are_numbered_as_in_the_file():
    content = b"device_id\n\nA-1\n\n\nA-2\n"

    assert [line for line, _ in table_file.read(io.BytesIO(content))] == [1, 3, 6]


def test_xlsx_is_read_with_numbers_as_they_look():
    content = workbook(
        ["device_id", "floor", "on", "share"], ["A-1", 3, True, 0.5], [None], ["A-2", 4.0, False, None]
    )

    assert rows(content) == [
        ["device_id", "floor", "on", "share"],
        ["A-1", "3", "true", "0.5"],
        ["A-2", "4", "false"],
    ]


def test_a_formula_counts_as_its_value_and_is_never_evaluated():
    content = workbook(["device_id", "name"], ["A-1", "=1+1"])

    assert rows(content) == [["device_id", "name"], ["A-1"]]


def test_the_file_of_the_caller_stays_open():
    file = io.BytesIO(b"device_id\nA-1\n")

    list(table_file.read(file))

    assert file.seek(0) == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"\n \n,,\n", "empty"),
        (b"device_id\nA\x001\n", "NUL"),
        ("device_id\nA-1\n".encode("utf-16"), "NUL"),
        (b"device_id\n\x81\xfe\n", "neither"),
        (b'device_id,name\nA-1,"open\n', "Line 3 is not CSV|Line 2 is not CSV"),
        (b"device_id\n" + b"x" * 1_001, "1,000 characters"),
        (b"device_id\n" + b"x" * (70 << 10), "65,536 characters"),
        (b"device_id\n" + (b"a," * 200 + b'"\n",') * 200, "row at line .* 65,536 characters"),
        (b"a," * 51 + b"b\n", "50 columns"),
        (b"PK\x03\x04 not a package", "whole XLSX"),
    ],
    ids=[
        "empty",
        "blank",
        "nul",
        "utf-16",
        "binary",
        "quote",
        "cell",
        "line",
        "lines of a row",
        "columns",
        "zip",
    ],
)
def test_a_file_that_cannot_be_read_says_why(content, reason):
    with pytest.raises(UnreadableTable, match=reason):
        rows(content)


def test_the_size_and_the_rows_are_bounded(monkeypatch):
    monkeypatch.setattr(table_file, "MAX_ROWS", 3)
    assert len(rows(b"device_id\na\nb\nc\n")) == 4
    with pytest.raises(UnreadableTable, match="more than 3 devices"):
        rows(b"device_id\na\nb\nc\nd\n")
    monkeypatch.setattr(table_file, "MAX_BYTES", 20)
    with pytest.raises(UnreadableTable, match="divide it"):
        rows(b"device_id\n" + b"a\n" * 10)


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
ROW = '<row r="1"><c r="A1"><v>1</v></c></row>'
HOSTILE = {
    "entities": {"xl_worksheets_sheet1": sheet("<row><c><v>&b;</v></c></row>", LAUGHS)},
    "an external entity": {
        "xl_worksheets_sheet1": sheet(ROW, '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>')
    },
    "a bomb": {"xl_media_image1": b" " * (21 << 20)},
    "a million columns": {"xl_worksheets_sheet1": sheet("<row>" + "<c><v>1</v></c>" * 1_000_000 + "</row>")},
    "a large cell": {
        "xl_worksheets_sheet1": sheet(f'<row><c t="inlineStr"><is><t>{"x" * (9 << 20)}</t></is></c></row>')
    },
    "a million rows that are not there": {
        "xl_worksheets_sheet1": sheet('<row r="999999999"><c r="A999999999"><v>1</v></c></row>')
    },
    "styles": {"xl_styles": b"<styleSheet><cellXfs>" + b"<xf/>" * 100_000 + b"</cellXfs></styleSheet>"},
    "strings": {"xl_sharedStrings": b"<sst>" + b"<si/>" * 600_000 + b"</sst>"},
    "depth": {"xl_workbook": b"<a>" * 100_000},
    "no XML": {"xl_workbook": b"<workbook"},
    "another root": {"xl_workbook": b"<workbook/>"},
    "utf-16": {"xl_worksheets_sheet1": sheet(ROW, LAUGHS).decode().encode("utf-16")},
}


@pytest.mark.parametrize("parts", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_package_is_refused(parts):
    with pytest.raises(UnreadableTable):
        rows(repacked(workbook(["device_id"], ["A-1"]), **parts))


def test_a_package_of_too_many_files_is_refused():
    parts = {f"xl_part{number}": b"<a/>" for number in range(1_100)}

    with pytest.raises(UnreadableTable, match="1,000 files"):
        rows(repacked(workbook(["device_id"]), **parts))


def test_a_package_that_states_a_wrong_size_is_refused():
    """The sizes that a package states are not trusted: the parts are read and counted."""
    content = repacked(workbook(["device_id"]), xl_media_image1=b" " * 1_000_000)
    lying = content.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != content

    with pytest.raises(UnreadableTable):
        rows(lying)


def packed(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as package:
        package.writestr("xl/workbook.xml", "<a>" + "x" * 5_000 + "</a>")
    return file.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_only_the_compression_of_xlsx_is_unpacked(method):
    """The other methods take as much memory as the file demands."""
    with pytest.raises(UnreadableTable, match="packed in a way"):
        rows(packed(method))


def test_a_damaged_part_is_refused():
    damaged = bytearray(packed(zipfile.ZIP_DEFLATED))
    damaged[damaged.index(b"xl/workbook.xml") + len("xl/workbook.xml")] ^= 0xFF

    with pytest.raises(UnreadableTable, match="whole XLSX"):
        rows(bytes(damaged))


def test_a_refused_package_takes_little_memory(monkeypatch):
    """The elements are counted without building them."""
    import tracemalloc

    content = repacked(workbook(["device_id"]), **HOSTILE["a million columns"])
    tracemalloc.start()
    with pytest.raises(UnreadableTable):
        xlsx_package.check(io.BytesIO(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 2_000_000
