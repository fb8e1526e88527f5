"""Requests as every dialect reads them: content types, forms, JSON, and the limits of each. No server, no database."""

from __future__ import annotations

import pytest

from authsvc.core.access import MalformedRequest
from authsvc.dialects.base import (
    CONTROL_PARAMETERS,
    FORM,
    JSON,
    MAX_BODY,
    Fields,
    Options,
    Reply,
    Request,
    json_reply,
)

pytestmark = pytest.mark.sqlite_only  # needs no database


def fields(body, content_type=JSON, **options):
    """Return the fields of a request with *body*."""
    headers = () if content_type is None else ((b"content-type", content_type.encode()),)
    return Request("POST", headers=headers, body=body, **options).fields


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8", f" {FORM.upper()} ;x"])
def test_a_form_is_read_by_its_content_type(content_type):
    assert fields(b"a=1&b=&c=x%20y+z", content_type) == {"a": "1", "b": "", "c": "x y z"}
    assert fields(b"a=b=c", content_type) == {"a": "b=c"}
    assert fields(b"", content_type) == {}


@pytest.mark.parametrize("content_type", [JSON, f"{JSON};charset=utf-8", JSON.upper()])
def test_json_is_read_by_its_content_type(content_type):
    assert fields(b'{"a": 1, "b": null, "c": [true, "\xc3\xa9"]}', content_type) == {
        "a": 1,
        "b": None,
        "c": [True, "é"],
    }


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "text/json", f"x{JSON}", f"{JSON}x"])
def test_another_content_type_is_malformed(content_type):
    with pytest.raises(MalformedRequest):
        fields(b"{}", content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"a"',
        b"{",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1, "a": 1}',
        b'{"b": {"a": 1, "a": 2}}',
        b'{"a": "\xff"}',
        b"{} {}",
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_not_one_json_object_is_malformed(body):
    with pytest.raises(MalformedRequest):
        fields(body)


@pytest.mark.parametrize("body", [b"a", b"a=1&b", b"a=1&a=1", b"a=1&%61=1", b"a=%ff", b"a=1&&b=2", b"a=\xff"])
def test_a_form_that_is_not_whole_is_malformed(body):
    with pytest.raises(MalformedRequest):
        fields(body, FORM)


@pytest.mark.parametrize("last", [b"x=1", b"x=%41"])
def test_a_form_has_at_most_64_fields(last):
    def form(number):
        return b"&".join([*(b"f%d=1" % each for each in range(number - 1)), last])

    assert len(fields(form(64), FORM)) == 64
    with pytest.raises(MalformedRequest):
        fields(form(65), FORM)


def test_an_oversized_request_is_malformed_whatever_it_holds():
    with pytest.raises(MalformedRequest, match=str(MAX_BODY)):
        fields(b"{}", oversized=True)
    assert MAX_BODY == 512 * 1024


def test_a_get_has_its_fields_in_the_query():
    asked = Request("GET", "username=S1&k=token&format=text&topic=a%2Fb")

    assert asked.fields == {"username": "S1", "topic": "a/b"}
    assert asked.is_form
    assert asked.parameters[1:3] == [("k", "token"), ("format", "text")]
    assert {"k", "format"} == CONTROL_PARAMETERS


def test_a_get_with_a_body_has_its_fields_there():
    asked = Request("GET", "username=S1", ((b"content-type", JSON.encode()),), b'{"a": 1}')

    assert asked.fields == {"a": 1}
    assert not asked.is_form


def test_a_post_is_a_form_by_its_content_type_alone():
    assert Request("POST", headers=((b"content-type", FORM.encode()),)).is_form
    assert not Request("POST").is_form
    assert not Request("HEAD").is_form


def test_headers_are_found_in_any_case_and_joined_if_repeated():
    asked = Request("POST", headers=((b"X-Token", b"one"), (b"x-token", b"two"), (b"Other", b"\xe9")))

    assert asked.header(b"x-token") == "one,two"
    assert asked.header(b"other") == "é"
    assert asked.header(b"missing") is None


def test_what_is_left_out_of_a_request_is_empty():
    asked = Request("POST")

    assert (asked.query, asked.headers, asked.body, asked.question, asked.peer) == ("", (), b"", "", "")
    assert (asked.path_token, asked.oversized, asked.caller_is_admitted) == (None, False, False)
    assert asked.options == Options("/", "amq.topic", 3_600, ())
    assert asked.content_type == ""


def test_a_request_shows_nothing_of_its_content():
    shown = repr(Request("POST", "k=secret", ((b"a", b"secret"),), b"secret", "acl", "10.0.0.1", "secret"))

    assert shown == "Request('POST', question='acl', peer='10.0.0.1')"


@pytest.mark.parametrize("value", [None, 1, True, ["a"], "a\x00", "\ud800", "é\udc80"])
def test_a_text_is_a_text(value):
    with pytest.raises(MalformedRequest, match="field a "):
        Fields(a=value).text("a")


def test_both_ends_of_the_surrogates_are_refused():
    for value in ("\ud800", "\udfff", "a\ud800"):
        with pytest.raises(MalformedRequest, match="surrogate"):
            Fields(a=value).text("a")


@pytest.mark.parametrize("value", ["", "a", "é", "\ud7ff\ue000", "\U0010ffff"])
def test_every_other_text_is_one(value):
    assert Fields(a=value).text("a") == value


def test_a_client_has_both_names():
    assert Fields(username="S1", id="C1").client("id") == ("S1", "C1", None, None)
    assert Fields(username="", id="C1").client("id").username == ""
    for incomplete in (
        {"username": "S1"},
        {"id": "C1"},
        {"username": "S1", "id": ""},
        {"username": 1, "id": "C1"},
    ):
        with pytest.raises(MalformedRequest):
            Fields(incomplete).client("id")


def test_a_reply_is_json_without_spaces():
    assert json_reply(200, {"a": 1, "b": [True, None]}) == Reply(200, b'{"a":1,"b":[true,null]}', JSON, None)
    assert json_reply(200, {}, 5.0).until == 5.0
    assert Reply(200, b"").content_type == "application/json"
