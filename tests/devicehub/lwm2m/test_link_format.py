"""CoRE link format, by which endpoints register their objects."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devicehub.lwm2m import link_format
from devicehub.lwm2m.link_format import Link, objects, parse, write
from devicehub.messages.json_limits import MAX_KEPT
from devicehub.messages.lwm2m.errors import CodecError

pytestmark = pytest.mark.sqlite_only

LEAF = '</>;rt="oma.lwm2m";ct="60 110 112",</1/0>,</3>;ver=1.2,</3/0>,</3303/0>,</3303/1>;ver="1.1"'

TEXTS = {
    "": [],
    "</3/0>": [Link("/3/0", {})],
    "</3>;ver=1.1,</3/0>": [Link("/3", {"ver": "1.1"}), Link("/3/0", {})],
    " </3> ; ver = 1.1 ,\r\n </3/0> ": [Link("/3", {"ver": "1.1"}), Link("/3/0", {})],
    '</>;rt="oma.lwm2m";ct=110': [Link("/", {"rt": "oma.lwm2m", "ct": "110"})],
    '</a>;title="x, </3>; \\"y\\" \\\\"': [Link("/a", {"title": 'x, </3>; "y" \\'})],
    "</a>;obs;sz=5": [Link("/a", {"obs": None, "sz": "5"})],
    "</a>;title*=UTF-8''x": [Link("/a", {"title*": "UTF-8''x"})],
    "</a>;rt=one;rt=two": [Link("/a", {"rt": "one"})],
    "<>": [Link("", {})],
    "<coap://[::1]/3>": [Link("coap://[::1]/3", {})],
}
NO_LINKS = {
    "/3/0": "character 0: is not a link such as </3/0>",
    "</3/0": "character 0: is not a link such as </3/0>",
    "<</3>>": "character 0: is not a link such as </3/0>",
    "</3>,": "character 5: is not a link such as </3/0>",
    ",</3>": "character 0: is not a link such as </3/0>",
    "</3> </4>": "character 5: a comma must stand between links",
    "</3>;": "character 5: is not the name of an attribute",
    "</3>;ver=": "character 9: the attribute ver has no value",
    '</3>;ver="1.1': "character 9: the attribute ver has no value",
    '</3>;ver="1.1" x': "character 15: a comma must stand between links",
    "</3>;=1": "character 5: is not the name of an attribute",
}


def test_texts_are_links():
    assert {text: parse(text) for text in TEXTS} == TEXTS


def test_other_texts_are_refused_with_the_place_of_the_fault():
    found = {}
    for text in NO_LINKS:
        with pytest.raises(CodecError) as refused:
            parse(text)
        found[text] = str(refused.value)

    assert found == NO_LINKS


def test_a_text_above_the_limit_and_one_of_open_quotes_are_refused_at_once():
    for text in ("<" * (MAX_KEPT + 1), '</3>;a="' * 100_000, "</3>;a" * 100_000, "\\" * 1000 + '"'):
        with pytest.raises(CodecError):
            parse(text)


def test_links_are_limited():
    """Each takes many times the memory of its text."""
    text = ",".join(["</3>"] * link_format.MOST_LINKS)

    assert len(parse(text)) == link_format.MOST_LINKS
    with pytest.raises(CodecError, match="more than 16384 links"):
        parse(f"{text},</3>")


names = st.text("abcdefgh-*", min_size=1, max_size=4)
values = st.none() | st.text(max_size=8) | st.sampled_from(["1.1", '"', "\\", "a b", ""])
urls = st.text(st.characters(exclude_characters="<>"), max_size=8)


@settings(deadline=None, database=None, max_examples=60)
@given(st.lists(st.builds(Link, urls, st.dictionaries(names, values, max_size=3)), max_size=4))
def test_links_survive(links):
    assert parse(write(links)) == links


def test_the_objects_of_a_registration():
    found = objects(parse(LEAF))

    assert found.root == "/"
    assert found.formats == (60, 110, 112)
    assert found.versions == {3: "1.2", 3303: "1.1"}
    assert found.instances == {1: [0], 3: [0], 3303: [0, 1]}


def test_the_objects_may_lie_below_another_path():
    found = objects(parse('</lwm2m>;rt="oma.lwm2m x",</lwm2m/1>,</lwm2m/3/0>,</3/5>,</lwm2mx/4/0>'))

    assert found.root == "/lwm2m"
    assert found.instances == {1: [], 3: [0]}


def test_links_to_anything_else_are_ignored():
    found = objects(parse("</1/0>,</.well-known/core>,</65535>,</03/0>,<coap://x/3/0>,</3/0>;if=x"))

    assert found.instances == {1: [0], 3: [0]}
    assert found.versions == {}


@pytest.mark.parametrize(
    "text", ["</3>;ver=1.1,</3/0>;ver=1.2", "</3>;ver=1", "</3>;ver", '</3>;ver="1.1.1"']
)
def test_versions_that_contradict_or_are_none_are_refused(text):
    if text == "</3>;ver":
        assert objects(parse(text)).versions == {}
        return
    with pytest.raises(CodecError):
        objects(parse(text))
