"""The export of the audit: complete, in bounded memory, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import stat
from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command

from authsvc import audit
from authsvc.audit import export
from authsvc.models import AuditEntry

pytestmark = pytest.mark.django_db


def exported(*arguments):
    out = io.StringIO()
    call_command("export_audit", *arguments, stdout=out)
    return out.getvalue()


def test_each_entry_is_a_line_newest_first():
    with audit.because('a "quoted" reason,\nin two lines'):
        audit.record("device_moved", "weatherstation/S-1", before={"site": "n"}, after={"site": "s"})
    audit.record("credentials_revoked", "weatherstation/S-2")

    newest, oldest = csv.DictReader(io.StringIO(exported()))
    as_json = [json.loads(line) for line in exported("--as", "ndjson").splitlines()]

    assert (newest["action"], newest["label"]) == ("credentials_revoked", "Credentials revoked")
    assert oldest["reason"] == 'a "quoted" reason,\nin two lines'
    assert json.loads(oldest["after"]) == {"site": "s"} == as_json[1]["after"]
    assert datetime.fromisoformat(newest["at"]).tzinfo is not None
    assert [found["object_key"] for found in as_json] == ["weatherstation/S-2", "weatherstation/S-1"]


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_cell_that_a_spreadsheet_would_compute_gets_an_apostrophe(text):
    AuditEntry.objects.create(
        at=datetime.now(UTC),
        actor_kind="user",
        actor=text,
        action="user_changed",
        object_key="user/x",
        reason=text,
    )

    [row] = csv.DictReader(io.StringIO(exported()))

    assert (row["actor"], row["reason"]) == (f"'{text}", f"'{text}")
    assert json.loads(exported("--as", "ndjson"))["actor"] == text


def test_a_period_and_an_object_can_be_chosen():
    for day in (1, 2, 3):
        AuditEntry.objects.create(
            at=datetime(2026, 5, day, tzinfo=UTC),
            actor_kind="user",
            actor=f"day {day}",
            action="user_changed",
            object_key=f"user/{day % 2}",
        )

    def days(*arguments):
        return [row["actor"] for row in csv.DictReader(io.StringIO(exported(*arguments)))]

    assert days("--from", "2026-05-02") == ["day 3", "day 2"]
    assert days("--to", "2026-05-03T00:00:00+00:00") == ["day 2", "day 1"]
    assert days("--object", "user/1") == ["day 3", "day 1"]
    with pytest.raises(CommandError, match="not a date"):
        exported("--from", "yesterday")


def test_a_file_is_for_its_owner_and_never_overwritten(tmp_path):
    audit.record("credentials_revoked", "weatherstation/S-2")
    file = tmp_path / "audit.csv"

    exported("--output", str(file))

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().count(b"\r\n") == 2
    with pytest.raises(CommandError, match="exists already"):
        exported("--output", str(file))


def test_memory_is_that_of_one_page(django_assert_num_queries):
    audit.record_many("credentials_revoked", (audit.Change(f"weatherstation/{n}") for n in range(2_500)))

    with django_assert_num_queries(4):
        sizes = [len(page) for page in export.pages(AuditEntry.objects.all())]

    assert sizes == [1_000, 1_000, 500]
