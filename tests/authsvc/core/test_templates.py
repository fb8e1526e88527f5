"""Templates of grants: the values of placeholders, of which none fills more than its level."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authsvc.core import grants
from authsvc.core.access import Action, Principal
from authsvc.core.grants import Rule
from rig import naive
from rig.examples import examples
from rig.topic_questions import a_few, ask, hostile_text, many

pytestmark = pytest.mark.sqlite_only  # Needs no database.


# Placeholders.

templates = st.one_of(
    st.lists(
        st.sampled_from(
            [
                "a",
                "",
                "+",
                "#",
                "{username}",
                "{client_id}",
                "x{device_id}y",
                "{type}{prefix}",
                "{other}",
                "{",
            ]
        ),
        min_size=1,
        max_size=6,
    ).map("/".join),
    hostile_text,
)
names = st.sampled_from([*sorted(grants.PLACEHOLDERS), "other", ""])
values = st.dictionaries(
    names,
    st.one_of(st.sampled_from(["A1", "", "+", "#", "a/b", "/", "{username}", "$SYS", "a\x00"]), hostile_text),
)


def shape(text: str) -> tuple[int, int, int]:
    return text.count("/"), text.count("+"), text.count("#")


@settings(max_examples=examples(120), deadline=None)
@given(templates, values)
@example("a/{username}/b", {"username": "#"})
@example("{username}{client_id}", {"username": "{client_id}", "client_id": "A1"})
def test_a_filled_grant_is_no_wider_than_its_template(template, given_values):
    filled = grants.fill(template, given_values)

    if filled is not None:
        assert shape(filled) == shape(template)
        assert filled.count("\x00") == template.count("\x00")


@pytest.mark.parametrize("value", ["", "+", "#", "/", "a/b", "a+", "#a", "a\x00", "\x00", None])
@pytest.mark.parametrize("name", sorted(grants.PLACEHOLDERS))
def test_a_value_that_could_change_the_levels_fills_nothing(name, value):
    template = f"things/{{{name}}}/x"

    assert grants.fill(template, {} if value is None else {name: value}) is None


def test_a_value_is_not_filled_again():
    assert grants.fill("a/{username}", {"username": "{type}", "type": "x"}) == "a/{type}"


def test_only_a_template_of_the_brokers_topics_fills_to_one():
    assert grants.fill("$SYS/{username}/#", {"username": "S1"}) == "$SYS/S1/#"
    assert grants.fill("{username}/a", {"username": "$SYS"}) is None
    assert grants.fill("a/{username}", {"username": "$SYS"}) == "a/$SYS"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("a/{x}", "no placeholder {x}"),
        ("a/{", "brace"),
        ("a/}", "brace"),
        ("a/#/b", "+"),
        ("$share/g/a", "$share/<group>/"),
        ("$CONTROL/a", "$CONTROL"),
    ],
)
def test_a_problem_is_named(template, problem):
    assert problem in grants.problem(template)


@many
@given(templates)
def test_a_template_without_a_problem_fills_to_a_filter(template):
    """With harmless values problem() and fill() never raise, for any template."""
    filled = grants.fill(template, dict.fromkeys(grants.PLACEHOLDERS, "A1"))

    if grants.problem(template) == "":
        assert filled is not None
        assert naive.inner(filled) == filled
        assert "{" not in filled


@pytest.mark.parametrize(
    "template",
    [
        "",
        "a#",
        "a/#/b",
        "a+",
        "{username}#",
        "+{username}",
        "{Username}",
        "{}",
        "{ username }",
        "{username",
        "username}",
        "{{username}}",
        "a/\x00",
        "a/\n",
        "\ud800",
        "$share",
        "$share/g/a",
        "$share/{username}/a",
    ],
)
def test_a_template_that_cannot_be_a_grant_is_reported(template):
    assert grants.problem(template) != ""


@pytest.mark.parametrize(
    "template",
    ["#", "+", "/", "/#", "+/{type}/#", "things/{type}/{device_id}/x", "$SYS/#", "{prefix}/{username}"],
)
def test_a_template_of_a_grant_has_no_problem(template):
    assert grants.problem(template) == ""


@a_few
@given(hostile_text)
@example("+")
@example("#")
@example("a/b")
@example("")
def test_a_client_id_reaches_no_level_but_its_own(client_id):
    """A client that may use any client id chooses the value of {client_id} only."""
    rover = Principal("account/rover", "rover", client_ids=None, grants=(Rule("rovers/{client_id}/x"),))

    for reach in ("#", "+/#", "rovers/#", "rovers/+/x", "rovers/other/x", "rovers//x"):
        decision = ask(rover, Action.SUBSCRIBE, reach, client_id)
        assert not decision.allowed or (client_id == "other" and reach == "rovers/other/x")


def test_placeholders_are_filled_from_the_client():
    rover = Principal(
        "account/rover",
        "rover",
        client_ids=None,
        grants=(Rule("{username}/{type}/{client_id}"),),
        attributes={"type": "car", "username": "other", "client_id": "other"},
    )

    assert ask(rover, Action.PUBLISH, "rover/car/c1", client_id="c1").allowed
    assert not ask(rover, Action.PUBLISH, "other/car/c1", client_id="c1").allowed
    assert not ask(rover, Action.PUBLISH, "rover/car/other", client_id="c1").allowed
    for unknown in ("rover/car/", "rover/car/other", "rover/car/None", "rover/car/{client_id}"):
        assert not ask(rover, Action.PUBLISH, unknown, client_id=None).allowed
