"""Files of new credentials: CSV for people, JSON for programs. They are made piece by piece and never stored."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from authsvc.text import harmless
from devicehub.credentials import handover
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice

COLUMNS = (
    *("type", "device_id", "name", "site", "host", "port", "tls"),
    *("mqtt_username", "mqtt_password", "client_id", "api_key"),
)
CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}

Issued = dict[str, Any]


def entry(kind: Kind, device: BaseDevice, credentials: dict[str, str]) -> Issued:
    """Return what a file holds about *device* and its new *credentials*, by the names of the single download."""
    place = {"type": kind.slug, "device_id": device.device_id, "name": device.name, "site": device.site}
    return place | handover.of(kind, device, credentials).values()


class CsvFile:
    """Credentials as CSV with a byte order mark, so that spreadsheets read it as UTF-8."""

    def begin(self) -> str:
        """Return the beginning of the file, with its heading."""
        return "\ufeff" + _lines([COLUMNS])

    def piece(self, devices: Iterable[Issued]) -> str:
        """Return the lines of *devices*."""
        return _lines([_cell(found.get(name)) for name in COLUMNS] for found in devices)

    def broken(self, reason: str) -> str:
        """Return a last line that says why the file is of no use."""
        return _lines([[harmless(reason)]])

    def end(self) -> str:
        """Return the end of the file."""
        return ""


class JsonFile:
    """Credentials as a JSON array of objects, one a line, with every value exactly as it is."""

    def __init__(self) -> None:
        self._separator = "\n "

    def begin(self) -> str:
        """Return the beginning of the file."""
        return "["

    def piece(self, devices: Iterable[Issued]) -> str:
        """Return the objects of *devices*."""
        text = ""
        for found in devices:
            text += self._separator + json.dumps(found)
            self._separator = ",\n "
        return text

    def broken(self, reason: str) -> str:
        """Return a last line that says why the file is of no use; with it the file is not valid."""
        return f"\n{reason}\n"

    def end(self) -> str:
        """Return the end of the file, without which it is not valid: a file that broke off is noticed."""
        return "\n]\n"


def new_file(form: str) -> CsvFile | JsonFile:
    """Return a file of the form `csv` or `json`."""
    return CsvFile() if form == "csv" else JsonFile()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return harmless(str(value or ""))


def _lines(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
