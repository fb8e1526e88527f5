"""Files of credentials as they occur: other separators, quotes, more columns, and secrets in the wrong place."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from devicehub.kinds.registry import registry
from devicehub.provisioning import credentials_file
from devicehub.provisioning.credentials_file import UnreadableFile, read
from fleet.models import WeatherStationDevice
from rig.seeds import HASHES

GOOD = HASHES["mosquitto pbkdf2"]
SECRET = "hunter2-plain"


@pytest.fixture
def judge(db) -> Callable[[str], list[credentials_file.Row]]:
    """Return a function that reads a text and judges its rows, as rows of weather stations."""

    def judged(text: str) -> list[credentials_file.Row]:
        rows = read(text).rows
        kind = registry.get("weatherstation")
        assert kind is not None
        credentials_file.judge(rows, kind)
        return rows

    return judged


@pytest.mark.parametrize(
    "header",
    [
        "username,hash,device_id",
        "username;hash;device_id",
        "username\thash\tdevice_id",
        '"username","hash","device_id"',
        '"Username"; "Hash"; "Device_ID"',
        "\ufeffusername,hash,device_id",
        "# exported today\n\nusername,hash,device_id",
        "username,hash,device_id,,",
        "username,hash,device_id\r",
    ],
)
@pytest.mark.sqlite_only
def test_a_csv_is_read_with_any_separator_and_quotes(judge, header):
    separator = next(char for char in header if char in ",;\t")
    stored = HASHES["argon2id"]
    lines = [
        separator.join(["roof", f'"{stored}"', "ROOF-1"]),
        separator.join(["yard", GOOD, "YARD-1", "", ""]),
    ]

    rows = judge("\n".join([header, *lines]) + "\n")

    assert [(row.username, row.hash, row.device_id, row.outcome) for row in rows] == [
        ("roof", stored, "ROOF-1", "new"),
        ("yard", GOOD, "YARD-1", "new"),
    ]


@pytest.mark.sqlite_only
def test_columns_that_mean_nothing_here_are_ignored_and_named(judge):
    text = f"id,username,is_superuser,hash\n7,roof,false,{GOOD}\n"

    assert read(text).ignored == ["id", "is_superuser"]
    assert [(row.username, row.hash, row.outcome) for row in judge(text)] == [("roof", GOOD, "new")]


@pytest.mark.sqlite_only
def test_a_hash_with_a_separator_that_is_not_quoted_is_one_clear_complaint(judge):
    [row] = judge(f"hash,username\n{HASHES['argon2id']},roof\n")

    assert "more fields than the first line names" in row.problem
    assert (row.line, row.username, row.device_id) == (2, "", "")


@pytest.mark.sqlite_only
def test_the_last_colon_parts_username_and_hash(judge):
    [row] = judge(f"plant:a:roof:{GOOD}\n")

    assert (row.username, row.hash, row.outcome) == ("plant:a:roof", GOOD, "new")


@pytest.mark.parametrize(
    "text",
    [
        f"roof;{GOOD}\n",
        f"roof,{GOOD},x\n",
        f"roof\t{SECRET}\n",
        f"user,password\nroof,{SECRET}\n",
        f"{SECRET}\n{SECRET}\n",
        f'username,hash\nroof,"{GOOD}\nyard,{SECRET}\n',
        f'username,hash\nroof,"{GOOD}"{SECRET}\n',
        f"username,hash,hash\nroof,{GOOD},{SECRET}\n",
        "username,hash\nroof," + SECRET * 20_000 + "\n",
        "",
        "\n\n# nothing\n",
    ],
)
@pytest.mark.sqlite_only
def test_a_file_of_another_form_is_one_complaint_that_repeats_nothing_of_it(text):
    with pytest.raises(UnreadableFile) as error:
        read(text)

    assert SECRET not in str(error.value)
    assert GOOD not in str(error.value)


@pytest.mark.sqlite_only  # Nothing is written.
@pytest.mark.parametrize(
    "line",
    [
        SECRET,
        GOOD,
        f"{SECRET}:",
        f"{GOOD}:",
        f"roof:{SECRET}",
        f"roof:{SECRET}:{SECRET}",
        f"{SECRET} {SECRET}:{GOOD}",
        f"{GOOD}:{SECRET}",
        f"roof:{GOOD}:{GOOD}",
        f"roof;{GOOD};{SECRET}",
        f"{SECRET}:{GOOD}x",
    ],
)
def test_a_line_that_cannot_be_read_is_shown_by_its_number_alone(tmp_path: Path, db, line):
    file = tmp_path / "passwd"
    file.write_text(f"fine:{GOOD}\n{line}\n")
    shown, listed, noted = StringIO(), StringIO(), StringIO()

    for out, more in ((shown, []), (listed, ["--json"])):
        with pytest.raises(SystemExit):
            call_command(
                "import_credentials", str(file), "--type", "weatherstation", *more, stdout=out, stderr=noted
            )

    for text in (shown.getvalue(), listed.getvalue(), noted.getvalue()):
        assert SECRET not in text
        assert GOOD[:20] not in text
    refused = json.loads(listed.getvalue())[1]
    assert (refused["line"], refused["verdict"]) == (2, "refused")
    assert refused["problem"]


@pytest.mark.parametrize("column", ["username", "device_id", "client_id"])
@pytest.mark.sqlite_only
def test_a_hash_in_the_wrong_column_is_not_shown(judge, column):
    values = {"username": "roof", "hash": GOOD, "device_id": "ROOF-1", "client_id": "radio"}
    values[column] = GOOD + "#"

    [row] = judge(f"{','.join(values)}\n{','.join(values.values())}\n")

    assert row.problem
    assert GOOD not in (row.username, row.device_id, row.client_id)
    assert GOOD not in repr(row)


@pytest.mark.sqlite_only  # Nothing is written.
@pytest.mark.parametrize("client_id", ["x" * 129, "a+", "#", "a\x00b", "a\x1fb", "a\x7fb", "\ufffe"])
def test_a_client_id_that_no_broker_takes_is_refused(judge, client_id):
    [row] = judge(f"username,hash,device_id,client_id\nroof,{GOOD},ROOF-1,{client_id}\n")

    assert "client id is not 1-128 characters" in row.problem
    assert row.client_id == ""


def test_a_client_id_of_128_characters_is_written(tmp_path: Path, db):
    client_id = "é" * 127 + "/"
    file = tmp_path / "fleet.csv"
    file.write_text(f"username,hash,device_id,client_id\nroof,{GOOD},ROOF-1,{client_id}\n", encoding="utf-8")

    call_command("import_credentials", str(file), "--type", "weatherstation", "--apply", stdout=StringIO())

    assert WeatherStationDevice.objects.get().mqtt_client_id == client_id


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, db):
    with pytest.raises(CommandError, match="cannot be read: No such file or directory"):
        call_command("import_credentials", str(tmp_path / "none"), "--type", "weatherstation")
