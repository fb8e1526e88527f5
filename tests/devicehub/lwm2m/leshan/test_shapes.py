"""The registrations and events of a Leshan server, as they were recorded from 2.0.0-M4, M15 and M18."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devicehub.lwm2m.leshan.shapes import (
    Deregistered,
    MalformedAnswer,
    Presence,
    Registered,
    Updated,
    Values,
    read_event,
    registration,
)
from devicehub.lwm2m.link_format import objects, parse

M18 = json.loads(r"""
    {"endpoint":"urn:dev:a","registrationId":"7fyBIFO2Re","registrationDate":1795932938686,
     "lastUpdate":1795932940000,"address":"127.0.0.1:35644","lwM2mVersion":"1.1","lifetime":60,
     "bindingMode":"UT","rootPath":"/","objectLinks":[
       {"url":"/","attributes":{"rt":"\"oma.lwm2m\"","ct":"\"60 110 112 11542 11543\""}},
       {"url":"/1/0","attributes":{}},{"url":"/3","attributes":{"ver":"1.2"}},
       {"url":"/3/0","attributes":{}},{"url":"/6/0","attributes":{}},
       {"url":"/3303","attributes":{"ver":"1.1"}},{"url":"/3303/0","attributes":{}},
       {"url":"/3442/0","attributes":{}}],
     "secure":false,"additionalRegistrationAttributes":{},"queuemode":false,
     "availableInstances":{"1":[0],"3":[0],"6":[0],"3303":[0],"3442":[0]}}
""")
SINGLE = {"kind": "singleResource", "id": 5700, "type": "FLOAT", "value": "18.6"}


def without(*names, **others):
    return {name: value for name, value in M18.items() if name not in names} | others


def test_a_registration_of_m18_is_read():
    found = registration(M18)

    assert found.members() == {
        "id": "7fyBIFO2Re",
        "at": 1795932938686,
        "lifetime": 60,
        "version": "1.1",
        "binding": "UT",
        "queue_mode": False,
        "links": '</>;rt="oma.lwm2m";ct="60 110 112 11542 11543",</1/0>,</3>;ver=1.2,</3/0>,</6/0>,'
        "</3303>;ver=1.1,</3303/0>,</3442/0>",
    }
    assert (found.endpoint, found.last_update, found.is_sleeping) == ("urn:dev:a", 1795932940000, False)
    assert found.instances == {1: (0,), 3: (0,), 6: (0,), 3303: (0,), 3442: (0,)}
    assert objects(parse(found.links)).versions == {3: "1.2", 3303: "1.1"}


def test_the_dates_of_m4_are_texts_and_it_lists_no_instances():
    found = registration(
        without("availableInstances", "queuemode", registrationDate="2026-11-29T06:24:54Z")
        | {"lastUpdate": "2026-11-29T06:24:55Z", "bindingMode": "UQ"}
    )

    assert (found.at, found.last_update) == (1795933494000, 1795933495000)
    assert found.instances[3303] == (0,)
    assert found.queue_mode


def test_a_sleeping_endpoint_is_told():
    found = registration(M18 | {"queuemode": True, "sleeping": True})

    assert found.queue_mode
    assert found.is_sleeping


def test_a_link_keeps_its_quotes_and_commas():
    attributes = {"title": '"a \\"b\\", c"', "dim": "3", "obs": None, "bad name": "x"}

    found = registration(without(objectLinks=[{"url": "/3/0", "attributes": attributes}]))

    assert parse(found.links)[0].attributes == {"title": 'a "b", c', "dim": "3", "obs": None}


def test_listed_instances_serve_an_endpoint_without_links():
    """A number of thousands of digits would be an error of its own, and end the stream for all endpoints."""
    listed = {"3": [0, 70000, -1, True, "1"], "9" * 5000: [0], "70000": [0], "²": [0], "3303": None, "6": []}

    assert registration(without(objectLinks=[], availableInstances=listed)).instances == {3: (0,), 6: ()}


def test_links_below_another_root_are_found():
    links = [{"url": "/lwm2m", "attributes": {"rt": '"oma.lwm2m"'}}, {"url": "/lwm2m/3/0", "attributes": {}}]

    assert registration(without(objectLinks=links, rootPath="/lwm2m")).instances == {3: (0,)}


@pytest.mark.parametrize(
    ("name", "data", "event"),
    [
        ("REGISTRATION", M18, Registered(registration(M18))),
        ("DEREGISTRATION", M18, Deregistered(registration(M18))),
        ("AWAKE", {"ep": "urn:dev:q"}, Presence("urn:dev:q", is_awake=True)),
        ("SLEEPING", {"ep": "urn:dev:q"}, Presence("urn:dev:q", is_awake=False)),
        (
            "NOTIFICATION",
            {"ep": "urn:dev:a", "kind": "single", "res": "/3303/0/5700", "val": SINGLE},
            Values("urn:dev:a", "notification", {"/3303/0/5700": SINGLE}),
        ),
        (
            "NOTIFICATION",  # M4
            {"ep": "urn:dev:a", "res": "/3303/0/5700", "val": {"id": 5700, "value": 30.0}},
            Values("urn:dev:a", "notification", {"/3303/0/5700": {"id": 5700, "value": 30.0}}),
        ),
        (
            "NOTIFICATION",
            {"ep": "a", "kind": "composite", "val": {"/3303/0/5700": SINGLE, "/3/0/9": None}, "paths": []},
            Values("a", "notification", {"/3303/0/5700": SINGLE}),
        ),
        ("SEND", {"ep": "a", "val": {"/3303/0/5700": SINGLE}}, Values("a", "send", {"/3303/0/5700": SINGLE})),
        ("COAPLOG", {"timestamp": 1}, None),
        ("REQUEST_RESPONSE", {"delayed": True}, None),
        ("message", {}, None),
    ],
)
def test_events_are_read(name, data, event):
    assert read_event(name, json.dumps(data)) == event


def test_an_update_names_its_changes():
    update = {"registrationId": "7fyBIFO2Re", "address": "127.0.0.1:1", "secure": False}
    data = {"registration": M18, "update": update | {"objectLinks": M18["objectLinks"], "lifetime": 60}}

    assert read_event("UPDATED", json.dumps(data)) == Updated(
        registration(M18), frozenset({"links", "lifetime"})
    )
    data["update"] = update | {"bindingMode": None, "lifetime": None}
    assert read_event("UPDATED", json.dumps(data)) == Updated(registration(M18), frozenset())


def test_a_lifetime_beyond_that_of_lwm2m_counts_as_the_longest():
    assert registration(M18 | {"lifetime": 2**63}).lifetime == 2**32 - 1


def test_data_that_is_not_needed_is_not_even_parsed():
    assert read_event("COAPLOG", "{") is None


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("REGISTRATION", "{"),
        ("REGISTRATION", "[" * 100_000),
        ("REGISTRATION", "[]"),
        ("UPDATED", "{}"),
        ("AWAKE", '{"ep": 7}'),
        ("AWAKE", '{"ep": ""}'),
        ("AWAKE", '{"ep": "a\\u0000"}'),
        ("AWAKE", '{"ep": "a\\ud800"}'),
        ("SEND", '{"ep": "a"}'),
        ("SEND", '{"ep": "a", "val": {"3303": {}}}'),
        ("SEND", json.dumps({"ep": "a", "val": {f"/{number}": {} for number in range(1001)}})),
    ],
)
def test_a_malformed_event_is_refused(name, data):
    with pytest.raises(MalformedAnswer):
        read_event(name, data)


@pytest.mark.parametrize(
    "members",
    [
        {"endpoint": "a" * 256},
        {"registrationId": None},
        {"registrationDate": "soon"},
        {"registrationDate": -1},
        {"registrationDate": True},
        {"lifetime": "60"},
        {"objectLinks": {}},
        {"objectLinks": [7]},
        {"objectLinks": [{"url": "</3>"}]},
    ],
)
def test_a_malformed_registration_is_refused(members):
    with pytest.raises(MalformedAnswer):
        registration(M18 | members)


texts = st.text('/03<>";=\\\x00 é', max_size=12) | st.sampled_from(
    ["url", "attributes", "2026-11-29T06:24:54Z"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


# The first draws are slow where the character tables of hypothesis are not cached yet.
@settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(M18)), anything))
def test_any_members_are_read_or_refused(members):
    try:
        found = registration(M18 | members)
    except MalformedAnswer:
        return
    json.dumps(found.members())
    assert all(isinstance(number, int) for number in found.instances)


def test_a_number_of_very_many_digits_is_the_text_of_its_node():
    """The other nodes of the event keep their values."""
    val = f'{{"/3303/0/5700": {{"value": {"1" * 5_000}}}, "/3303/0/5601": {{"value": 7}}}}'

    found = read_event("SEND", f'{{"ep": "urn:dev:a", "val": {val}}}')

    assert [node["value"] for node in found.nodes.values()] == ["1" * 5_000, 7]
