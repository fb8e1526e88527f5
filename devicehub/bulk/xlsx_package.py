"""The check of an XLSX file before a library reads it: a package of XML files that may be made to harm.

The library builds objects for all styles and for all cells of a row. A small package can hold so many of them that
they fill the memory, so that their numbers are counted here first, without building anything.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import IO, NoReturn
from xml.parsers import expat

from devicehub.errors import DevicehubError

MAX_BYTES = 20 << 20  # Of a file, and of a package unpacked.
MAX_FILES = 1_000
MAX_LINES = 200_000  # Rows of one sheet.
MAX_CELLS = 1_000  # In one row; the reader refuses much fewer with a better text.
MAX_STRINGS = 500_000
MAX_ELEMENTS = 20_000  # In a part that holds no cells and no texts, such as the styles.
MAX_DEPTH = 50
CHUNK = 64 << 10
# Others take as much memory as the file demands.
COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
ENTRY = b"PK\x01\x02"  # Each file of a package has an entry in its directory, which begins with this.
# An XML file begins with one of these; other parts are pictures and the like, which the reader cannot read.
XML_BEGINNINGS = tuple(bytes([byte]) for byte in b"<\x00\xef\xff\xfe \t\r\n")

COPY = "copy the cells into a new file"
TOO_LARGE = f"The file has more than {MAX_BYTES >> 20} MB unpacked; divide it"


class UnreadableTable(DevicehubError):
    """The file cannot be imported as a table; the text says why and how it would be right."""


def check(file: IO[bytes]) -> None:
    """Raise UnreadableTable if *file* is not a whole package, or too large by what it states or by what it is."""
    file.seek(0)
    if file.read(MAX_BYTES).count(ENTRY) > MAX_FILES:
        raise UnreadableTable(f"The file holds more than {MAX_FILES:,} files; {COPY}")
    try:
        with zipfile.ZipFile(file) as package:
            entries = package.infolist()
            if not {entry.compress_type for entry in entries} <= COMPRESSIONS:
                raise UnreadableTable("The file is packed in a way that XLSX does not have; save it again")
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise UnreadableTable(TOO_LARGE)
            left = MAX_BYTES
            for entry in entries:
                with package.open(entry) as part:
                    left = _check_part(part, left)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise UnreadableTable("The file is not a whole XLSX file; save it again") from error
    except expat.ExpatError as error:
        raise UnreadableTable("The file is not an XLSX table that can be read; save it again") from error
    finally:
        file.seek(0)


def _check_part(part: IO[bytes], left: int) -> int:
    """Read *part*, count its elements if it may be XML, and return how many of *left* bytes remain."""
    first = part.read(CHUNK)
    counter = Counter() if first.startswith(XML_BEGINNINGS) else None
    chunk = first
    while chunk:
        left -= len(chunk)
        if left < 0:
            raise UnreadableTable(TOO_LARGE)
        if counter is not None:
            counter.feed(chunk)
        chunk = part.read(CHUNK)
    if counter is not None:
        counter.feed(b"", is_last=True)
    return left


class Counter:
    """Counts the elements of an XML file while it is read, and refuses what would fill the memory."""

    def __init__(self) -> None:
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._root = ""
        self._depth = self._cells = 0
        self._counts: dict[str, int] = {}

    def feed(self, chunk: bytes, *, is_last: bool = False) -> None:
        """Count the elements in *chunk*. Raise UnreadableTable, or ExpatError for a file that is not XML."""
        self._parser.Parse(chunk, is_last)

    def _start(self, name: str, _: object) -> None:
        name = name.rpartition(":")[2]
        self._root = self._root or name
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableTable(f"The file is nested too deeply; {COPY}")
        if self._root == "worksheet" and name in ("c", "row"):
            self._count_cells(name)
        elif self._root == "sst" and name not in ("sst", "si"):
            return  # Texts of one string are bounded by the size.
        else:
            self._count(name)

    def _count_cells(self, name: str) -> None:
        self._cells = 0 if name == "row" else self._cells + 1
        if self._cells > MAX_CELLS:
            raise UnreadableTable(f"A row has more than {MAX_CELLS:,} cells; {COPY}")
        if name == "row":
            self._add("row", MAX_LINES, f"The file has more than {MAX_LINES:,} rows; divide it")

    def _count(self, name: str) -> None:
        if self._root == "worksheet" and name in ("v", "f", "is", "t"):
            return  # They stand in cells.
        most = MAX_STRINGS if name == "si" else MAX_ELEMENTS
        self._add(name if name == "si" else "", most, f"The file holds too much beside its cells; {COPY}")

    def _add(self, name: str, most: int, reason: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1
        if self._counts[name] > most:
            raise UnreadableTable(reason)

    def _end(self, _: str) -> None:
        self._depth -= 1

    def _refuse_doctype(self, *_: object) -> NoReturn:
        raise UnreadableTable(f"The file declares entities, which no table needs; {COPY}")
