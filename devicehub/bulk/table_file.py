"""Tables that people upload: CSV as spreadsheets write it, and XLSX. Everything is bounded before it is read."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, Any
from xml.etree.ElementTree import ParseError

from authsvc.text import as_it_was
from devicehub.bulk import xlsx_package
from devicehub.bulk.xlsx_package import MAX_BYTES, UnreadableTable

MAX_ROWS = 100_000
MAX_LINES = 2 * MAX_ROWS  # With empty ones.
MAX_COLUMNS = 50
MAX_CELL = 1_000  # characters
MAX_LINE = 64 << 10  # characters of one row, which may have several lines
SEPARATORS = (",", ";", "\t")
CHUNK = 64 << 10

Row = tuple[int, list[str]]


def read(file: IO[bytes]) -> Iterator[Row]:
    """Yield the rows of *file* that are not empty, the headings first: the number of the line, and its cells.

    XLSX is recognised by its first bytes, anything else is CSV. Raise UnreadableTable, also after some rows.
    """
    file.seek(0, io.SEEK_END)
    if file.tell() > MAX_BYTES:
        raise UnreadableTable(f"The file has more than {MAX_BYTES >> 20} MB; divide it")
    file.seek(0)
    is_zip = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    return _bounded(_xlsx(file) if is_zip else _csv(file))


def _bounded(rows: Iterable[tuple[int, Iterable[Any]]]) -> Iterator[Row]:
    count = 0
    for line, values in rows:
        cells = [_cell(line, value) for value in values]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        if len(cells) > MAX_COLUMNS:
            raise UnreadableTable(f"Line {line} has more than {MAX_COLUMNS} columns; remove some")
        count += 1
        if count > MAX_ROWS + 1:
            raise UnreadableTable(f"The file has more than {MAX_ROWS:,} devices; divide it")
        yield line, cells
    if not count:
        raise UnreadableTable(
            "The file is empty; its first line names the columns, such as device_id,name,site"
        )


def _cell(line: int, value: Any) -> str:
    """Return the text of a cell: a whole number without a decimal point, a truth value as true or false.

    The apostrophe with which our files keep a cell from being a formula is left out.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = as_it_was(str(value).strip())
    if len(text) > MAX_CELL:
        raise UnreadableTable(f"A cell of line {line} has more than {MAX_CELL:,} characters; shorten it")
    return text


def _csv(file: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of a CSV file. The separator is the one that its first line has most often."""
    text = io.TextIOWrapper(file, encoding=_encoding(file), newline="")
    try:
        first = text.readline(MAX_LINE)
        text.seek(0)
        separator = max(SEPARATORS, key=first.count)
        lines = _Lines(text)
        reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            for record in reader:
                lines.size = 0
                yield reader.line_num, record
        except csv.Error as error:
            raise UnreadableTable(
                f"Line {reader.line_num} is not CSV: a double quote is not closed or is followed by text, "
                "or a field is too long"
            ) from error
    finally:
        with suppress(ValueError):  # The caller may have closed the file already.
            text.detach()  # Otherwise the wrapper would close the file of its caller.


def _encoding(file: IO[bytes]) -> str:
    """Return the encoding of a CSV file: UTF-8 with or without a byte order mark, or else Windows-1252.

    Raise UnreadableTable for a file that is text in neither.
    """
    for encoding in ("utf-8-sig", "cp1252"):
        decoder = io.TextIOWrapper(file, encoding=encoding, newline="")
        try:
            while text := decoder.read(CHUNK):
                if "\x00" in text:
                    raise UnreadableTable(
                        "The file is not CSV: it holds NUL. Save it as CSV (UTF-8) or as XLSX, not as XLS or UTF-16"
                    )
        except UnicodeDecodeError:
            continue
        else:
            return encoding
        finally:
            decoder.detach()
            file.seek(0)
    raise UnreadableTable("The file is text in neither UTF-8 nor Windows-1252; save it as CSV (UTF-8)")


class _Lines:
    """The lines of a CSV file. *size* counts the characters of a row, and its reader sets it to 0 after each."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._number = 0
        self.size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_LINE)
        if not line:
            raise StopIteration
        self._number += 1
        self.size += len(line)
        if self.size >= MAX_LINE:
            raise UnreadableTable(
                f"The row at line {self._number} has more than {MAX_LINE:,} characters; shorten it"
            )
        return line


def _xlsx(file: IO[bytes]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the rows of the first sheet of an XLSX file; openpyxl reads its XML with defusedxml.

    Formulas count as the value that the file stores for them.
    """
    import openpyxl  # Takes 0.2 s and 10 MB, which only an upload needs to pay.

    xlsx_package.check(file)
    try:
        book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # The file may state a width of a million columns.
        yield from _filled(sheet.iter_rows(values_only=True, max_col=MAX_COLUMNS + 1))
    except UnreadableTable:
        raise
    except _faults() as error:
        raise UnreadableTable("The file is not an XLSX table that can be read; save it again") from error


def _filled(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield *rows* that hold a value, with their numbers. openpyxl makes up the rows between two that exist."""
    for number, row in enumerate(rows, 1):
        if number > MAX_LINES:
            raise UnreadableTable(f"The file has more than {MAX_LINES:,} lines; remove empty ones")
        if any(value is not None for value in row):
            yield number, row


def _faults() -> tuple[type[Exception], ...]:
    """Return the errors that openpyxl raises for files that other programs wrote, or that were made to harm."""
    from defusedxml import DefusedXmlException
    from openpyxl.utils.exceptions import InvalidFileException

    return (
        *(DefusedXmlException, InvalidFileException, ParseError, zipfile.BadZipFile),
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, OSError, EOFError),
    )
