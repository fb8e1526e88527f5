"""`manage.py decode_lwm2m`."""

from __future__ import annotations

import io
import json
import shlex
import sys

import pytest
from django.core.management import CommandError, call_command

from rig.lwm2m import types_in, vectors
from rig.pages import marked, page

pytestmark = pytest.mark.sqlite_only

SOME = ("rfc several units", "base time replaced", "object links in", "negative 64", "every type", "no value")
CHOSEN = [vector for vector in vectors() if vector["name"].startswith(SOME)]


def decode(payload: bytes, form: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the command prints for *payload* on standard input."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(payload)))
    call_command("decode_lwm2m", "--format", form, *arguments, "-", stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("vector", CHOSEN, ids=lambda vector: vector["name"])
def test_a_vector_is_printed_as_it_is_written(vector, tmp_path):
    file = tmp_path / "payload"
    file.write_bytes(bytes.fromhex(vector["payload"]))
    out = io.StringIO()
    types = json.dumps(types_in(vector["expected"]))
    arguments = ("--format", vector["format"], "--base", vector["base"], "--types", types, str(file))

    if vector["expected"] == "error":
        with pytest.raises(CommandError, match=r"^record 0: has no value$"):
            call_command("decode_lwm2m", *arguments, stdout=out)
    else:
        call_command("decode_lwm2m", *arguments, stdout=out)
        assert json.loads(out.getvalue()) == vector["expected"]


def test_the_page_of_the_command_shows_what_it_prints(monkeypatch):
    [block] = marked(page("reference/commands.md"), "payload of LwM2M")
    given, shown = block.splitlines()
    echo, _, command = given.partition(" | ")

    payload, arguments = shlex.split(echo)[1].encode(), shlex.split(command)[3:-1]

    assert shown == "# " + decode(payload, arguments[1], *arguments[2:], monkeypatch=monkeypatch).rstrip()


def test_times_from_now_and_exact_numbers_are_printed(monkeypatch):
    payload = (
        b'[{"bn":"/34/0/","n":"1","v":1,"t":-1.5},{"n":"2","v":-9007199254740993,"t":0},'
        b'{"n":"3","v":0.12345678901234567890,"t":1276020076.001},{"n":"4","vs":"\xc3\xbc","t":268435455}]'
    )

    printed = decode(payload, "senml+json", "--base", "/34/0/", monkeypatch=monkeypatch)

    assert printed == (
        '[["/34/0/1", "Integer", 1, "now-1.5"], ["/34/0/2", "Integer", "-9007199254740993", "now+0"], '
        '["/34/0/3", "Float", 0.12345678901234567890, 1276020076.001], '
        '["/34/0/4", "String", "\\u00fc", "now+268435455"]]\n'
    )


def test_the_base_of_names_is_empty_and_that_of_paths_may_be_the_root(monkeypatch):
    pack = b'[{"n":"/34/0/1","v":1}]'

    with pytest.raises(
        CommandError, match=r"^record 0: '/34/0/1' is not a name of SenML: a path needs a base$"
    ):
        decode(pack, "senml+json", monkeypatch=monkeypatch)
    assert (
        decode(pack, "senml+json", "--base", "/", monkeypatch=monkeypatch) == '[["/34/0/1", "Integer", 1]]\n'
    )
    assert decode(b"\xa0", "lwm2m+cbor", monkeypatch=monkeypatch) == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--base", "9/0"),
        ("--base", "/65535"),
        ("--types", "{"),
        ("--types", "[]"),
        ("--types", '{"9": "Float"}'),
        ("--types", '{"9/1": "Double"}'),
        ("--types", '{"9/1": 1}'),
    ],
)
def test_arguments_that_cannot_be_read_are_refused(arguments, monkeypatch):
    with pytest.raises(CommandError, match=f"argument {arguments[0]}: "):
        decode(b"[]", "senml+json", *arguments, monkeypatch=monkeypatch)


def test_a_file_that_is_missing_or_too_large_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(CommandError, match=r"nothing: No such file or directory$"):
        call_command("decode_lwm2m", "--format", "tlv", str(tmp_path / "nothing"))
    with pytest.raises(CommandError, match=r"^byte 1048576: the payload has more than 1048576 bytes$"):
        decode(bytes(2 << 20), "opaque", "--base", "/5/0/0", monkeypatch=monkeypatch)
    monkeypatch.setattr(sys, "stdin", None)  # After `<&-` in a shell.
    with pytest.raises(CommandError, match=r"^-: standard input is closed$"):
        call_command("decode_lwm2m", "--format", "tlv", "-")


@pytest.mark.parametrize(
    ("form", "payload"),
    [
        ("senml+json", b'[{"n":"/9/0/1","v":1,"a\\n\\u001b[31m\\u2028_":1}]'),
        ("senml+cbor", bytes.fromhex("81a2 626e0a 01 626e0a 02")),
    ],
)
def test_an_error_that_quotes_the_payload_is_one_line(form, payload, monkeypatch):
    with pytest.raises(CommandError) as caught:
        decode(payload, form, "--base", "/", monkeypatch=monkeypatch)
    assert str(caught.value).isprintable()
    assert r"\n" in str(caught.value)


def test_types_of_shipped_objects_are_known_and_given_ones_win(monkeypatch):
    temperature = bytes.fromhex("e4 1644 41a40000")

    assert decode(temperature, "tlv", "--base", "/3303/0", monkeypatch=monkeypatch) == (
        '[["/3303/0/5700", "Float", 20.5]]\n'
    )
    types = ("--types", '{"3303/5700": "Opaque"}')
    assert decode(temperature, "tlv", "--base", "/3303/0", *types, monkeypatch=monkeypatch) == (
        '[["/3303/0/5700", "Opaque", "41a40000"]]\n'
    )
