"""The topics of a device: it may use its own, and no others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.core import authority
from authsvc.core.access import Action, Client, Principal, Reason, TopicQuestion
from authsvc.core.grants import ActionSet, Rule
from authsvc.core.memory import MemoryDirectory
from rig import naive
from rig.coroutines import result
from rig.topic_questions import a_few, ask, hostile_characters, somebody

pytestmark = pytest.mark.sqlite_only  # Needs no database.


# A station, with the rules of devicehub.kinds.topics.owned(), under the attacks of the threat model.

OWN = "things/weatherstation/STATION-001"
NEIGHBOUR = "things/weatherstation/STATION-002"


@pytest.fixture
def station() -> Principal:
    return Principal(
        "weatherstation/STATION-001",
        "fleet-weatherstationdevice-STATION-001",
        client_ids=("STATION-001", "fleet-weatherstationdevice-STATION-001"),
        grants=(
            Rule(f"{OWN}/data", ActionSet.PUBLISH, name="own data"),
            Rule(f"{OWN}/status", ActionSet.PUBLISH, name="own status"),
            Rule(f"{OWN}/reply", ActionSet.PUBLISH, name="own reply"),
            Rule(f"{OWN}/cmd", ActionSet.SUBSCRIBE, name="own cmd"),
            Rule(f"{OWN}/cmd", ActionSet.RECEIVE, name="own cmd"),
        ),
        attributes={"type": "weatherstation", "device_id": "STATION-001", "prefix": "things"},
    )


OWNED = [
    *((Action.PUBLISH, f"{OWN}/{message_type}") for message_type in ("data", "status", "reply")),
    *((action, f"{OWN}/cmd") for action in (Action.SUBSCRIBE, Action.RECEIVE)),
    (Action.SUBSCRIBE, f"$share/g/{OWN}/cmd"),
]


@pytest.mark.parametrize(("action", "topic"), OWNED)
def test_a_station_may_use_its_own_topics(station, action, topic):
    assert ask(station, action, topic)[:2] == (True, Reason.GRANT)


ATTACKS = {
    "T-A1 a filter that reaches a sibling": [
        (Action.SUBSCRIBE, topic_filter)
        for topic_filter in (
            "#",
            "+/#",
            "/#",
            "things/#",
            "things/+/+/cmd",
            "things/weatherstation/+/cmd",
            "things/weatherstation/#",
            "+/weatherstation/STATION-001/cmd",
            "things/+/STATION-001/cmd",
            "+/+/+/+",
            f"{OWN}/#",
            f"{OWN}/+",
            f"{OWN}/cmd/#",
            f"{OWN}/cmd/+",
            f"{NEIGHBOUR}/cmd",
            f"{NEIGHBOUR}/#",
            "$share/g/#",
            "$share/g/things/+/+/cmd",
            f"$share/g/{NEIGHBOUR}/cmd",
        )
    ],
    "T-A1 a wildcard in a publish": [
        (Action.PUBLISH, topic)
        for topic in ("#", "+", f"{OWN}/+", f"{OWN}/#", "things/+/+/data", f"{OWN}/dat+")
    ],
    "T-A2 a topic that looks like the own one": [
        (
            action,
            f"{before}{OWN if own is None else own}/{'data' if action is Action.PUBLISH else 'cmd'}{after}",
        )
        for action in Action
        for before, own, after in (
            ("/", None, ""),
            (" ", None, ""),
            ("./", None, ""),
            ("\ufeff", None, ""),
            ("", None, "/"),
            ("", None, " "),
            ("", None, "\n"),
            ("", None, "\r\n"),
            ("", None, "\x00"),
            ("", None, "\u200b"),
            ("", None, "\u202e"),
            ("", None, "/."),
            ("", None, "/.."),
            ("", None, "%00"),
            ("", None, "?"),
            ("", None, ",#"),
            ("", OWN.lower(), ""),
            ("", OWN.upper(), ""),
            ("", "Things/weatherstation/STATION-001", ""),
            ("", "things/weather_station/STATION-001", ""),
            ("", "things/weatherstationdevice/STATION-001", ""),
            ("", "things/WeatherStation/STATION-001", ""),
            ("", "things//weatherstation/STATION-001", ""),
            ("", "things/weatherstation/STATION-001/", ""),
            ("", "things/weatherstation/./STATION-001", ""),
            ("", "things/weatherstation/STATION-002/../STATION-001", ""),
            ("", "things%2Fweatherstation%2FSTATION-001", ""),
            ("", "things\\weatherstation\\STATION-001", ""),
            ("", "things.weatherstation.STATION-001", ""),
            ("", "things/weatherstation/STATION\u2010001", ""),
            ("", "things/weatherstation/ＳＴＡＴＩＯＮ-001", ""),
            ("", "things/weatherstation/STATİON-001", ""),
            ("", "things/weatherstation/{device_id}", ""),
            ("", "{prefix}/{type}/{device_id}", ""),
        )
    ],
    "T-A2 data and status by another name": [
        (Action.PUBLISH, f"{OWN}/{word}")
        for word in ("Data", "DATA", "dat", "data2", "data/x", "", "telemetry", "data\t")
    ],
    "T-A3 an id that is the beginning of another": [
        (action, f"things/weatherstation/{device_id}/{'data' if action is Action.PUBLISH else 'cmd'}")
        for action in Action
        for device_id in (
            "STATION-00",
            "STATION-0011",
            "STATION-001x",
            "XSTATION-001",
            "STATION",
            "S",
            "",
            "TATION-001",
        )
    ],
    "T-A4 other words that brokers know": [
        (action, f"{prefix}/{OWN}/{'data' if action is Action.PUBLISH else 'cmd'}")
        for action in Action
        for prefix in (
            "$queue",
            "$exclusive",
            "$delayed/10",
            "$SYS",
            "$CONTROL",
            "$events",
            "$file",
            "$SHARE/g",
            "$share",
            "$share/g/$share/h",
            "$share/g/$queue",
            "$share/g/$exclusive",
            "$queue/$share/g",
            "$share//g",
            "$share/+",
            "$local",
            "$",
        )
    ],
    "T-A4 channels of the broker": [
        (action, topic)
        for action in Action
        for topic in (
            "$SYS/broker/uptime",
            "$SYS/#",
            "$CONTROL/dynamic-security/v1",
            "$CONTROL/#",
            "$share/g/$CONTROL/#",
            "$share/g/$SYS/#",
            "$events/client_connected",
            "$file/x/init",
            f"$delayed/10/{OWN}/cmd",
            "$queue/#",
            "$exclusive/#",
            "$share",
            "$share/g",
        )
    ],
    "T-A4 a publish into a share": [
        (action, f"$share/g/{OWN}/{word}")
        for action in (Action.PUBLISH, Action.RECEIVE)
        for word in ("data", "cmd")
    ],
    "T-A7 the other direction": [
        (Action.PUBLISH, f"{OWN}/cmd"),
        *(
            (action, f"{share}{OWN}/{word}")
            for action in (Action.SUBSCRIBE, Action.RECEIVE)
            for share in ("", "$share/g/")
            for word in ("data", "status", "reply")
        ),
    ],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_station_reaches_nothing_else(station, attack):
    for action, topic in ATTACKS[attack]:
        assert not ask(station, action, topic).allowed, (action, topic)


@a_few
@given(
    st.sampled_from(OWNED),
    st.integers(0, 60),
    hostile_characters,
    st.sampled_from(["replace", "insert", "cut"]),
)
def test_a_station_owns_no_topic_with_one_wrong_character(owned, position, character, change):
    """T-A2 and T-A3 at every position: topics are compared exactly, not by prefix or folded case."""
    action, topic = owned
    position %= len(topic)
    head, tail = topic[:position], topic[position + (change != "insert") :]
    changed = head + (character if change != "cut" else "") + tail
    if naive.inner(changed) in {own for allowed, own in OWNED if allowed is action}:
        return  # Only the group of a share has changed, or nothing.
    held = (Rule(own, ActionSet(allowed.value)) for allowed, own in OWNED if not own.startswith("$"))

    assert not ask(somebody(*held), action, changed).allowed


@pytest.mark.parametrize(
    "word", ["PUBLISH", "Publish", "publish ", "", "all", "read", "write", "1", 0, 1, 2, 3, True, None]
)
def test_a_word_that_is_no_action_is_refused(station, word):
    """T-A8: any value in place of an Action."""
    with pytest.raises(ValueError):
        Action(word)
    for _, topic in OWNED:
        assert not ask(station, word, topic).allowed


def test_a_client_id_that_is_not_the_stations_own_is_refused_before_the_topic(station):
    for client_id in ("STATION-002", "STATION-0011", "station-001", "", "STATION-001 "):
        assert ask_refusal(station, client_id) is Reason.CLIENT_ID
    assert ask(station, Action.PUBLISH, f"{OWN}/data", "STATION-001").allowed


def ask_refusal(principal: Principal, client_id: str) -> Reason:
    question = TopicQuestion(Client(principal.username, client_id), Action.PUBLISH, [f"{OWN}/data"])
    verdict = result(authority.decide(question, authority.Rules(), MemoryDirectory([principal])))
    assert not verdict.allowed
    return verdict.decisions[0].reason


def test_each_of_several_topics_has_its_own_decision(station):
    """The question is allowed only if each topic is; without topics it is denied."""
    wanted = [f"{OWN}/cmd", f"{NEIGHBOUR}/cmd", "a\x00", f"{OWN}/cmd"]
    directory = MemoryDirectory([station])

    def answers(asked: list[str]):
        question = TopicQuestion(Client(station.username, None), Action.SUBSCRIBE, asked)
        return result(authority.decide(question, authority.Rules(), directory))

    verdict = answers(wanted)

    assert [decision.topic for decision in verdict.decisions] == wanted
    assert [decision.allowed for decision in verdict.decisions] == [True, False, False, True]
    assert not verdict.allowed
    assert not answers([]).allowed
