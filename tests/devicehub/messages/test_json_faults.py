"""The words about a payload that is not JSON: its fault and its place."""

from __future__ import annotations

import pytest

from devicehub.messages.decode import json_document
from devicehub.messages.json_faults import VALUE
from devicehub.messages.message import FailureReason, Unreadable

AMOUNT = '{"amount": '


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("{amount: 1}", 'not JSON at byte 2, "a": a name in double quotes is missing'),
        (
            "{'amount': 1}",
            """not JSON at byte 2, "'": a name in double quotes is missing; use double quotes""",
        ),
        ('{"amount" 1}', 'not JSON at byte 11, "1": a colon is missing behind the name'),
        (AMOUNT + "}", f'not JSON at byte 12, "}}": {VALUE}'),
        (AMOUNT, f"the payload is cut off after byte 11: {VALUE}"),
        (
            AMOUNT + "nan}",
            f'not JSON at byte 12, "n": {VALUE}; write a number that is not known as null, or leave it out',
        ),
        (
            AMOUNT + "01}",
            'not JSON at byte 13, "1": a comma is missing, or the bracket that closes the list or object',
        ),
        (AMOUNT + "1}\0", "not JSON at byte 14, U+0000: more bytes follow after the end of the JSON"),
        ("[1, ]", 'not JSON at byte 3, ",": no comma may stand behind the last entry of a list or object'),
        (
            AMOUNT + "1,}",
            'not JSON at byte 13, ",": no comma may stand behind the last entry of a list or object',
        ),
        (
            '{"label": "Süd}',
            'not JSON at byte 11, """: the text that begins here has no closing double quote',
        ),
        (
            '{"label": "ü\nb"}',
            "not JSON at byte 14, U+000A: a text holds a line break or another control character; "
            "write it as \\n or \\u000a",
        ),
        (
            '{"label": "\\x"}',
            'not JSON at byte 12, "\\": a text holds a backslash with characters that JSON does not have',
        ),
        (
            '{\n  "a": 1\n  "b": 2}',
            'not JSON at byte 14 in line 3, """: a comma is missing, or the bracket that closes the list or object',
        ),
        ("hello", f'not JSON at byte 1, "h": {VALUE}'),
    ],
)
def test_the_fault_has_words_and_a_place_in_bytes(payload, words):
    assert fault(payload.encode()) == words


def test_the_place_counts_a_byte_order_mark():
    assert fault(b"\xef\xbb\xbf{amount: 1}").startswith("not JSON at byte 5, ")


def test_bytes_that_are_not_utf8_are_named():
    assert fault('{"label": "ä"}'.encode("latin-1")) == "not UTF-8 at byte 12, 0xe4: JSON must be UTF-8"


def test_every_depth_has_the_same_words():
    assert fault(b"[" * 101 + b"]" * 101) == fault(b"[" * 100_000) == "nested deeper than 100 levels"


def fault(payload: bytes) -> str:
    """Return the detail of *payload*, which fits its column and is one line."""
    with pytest.raises(Unreadable) as caught:
        json_document(payload)
    assert caught.value.reason == FailureReason.NOT_JSON
    assert len(caught.value.detail) <= 200
    assert caught.value.detail.isprintable()
    return str(caught.value.detail)
