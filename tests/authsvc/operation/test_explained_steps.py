"""The steps, the rules and the wire answers of an explanation agree with its decision."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import UTC, datetime
from io import StringIO

import pytest
from django.core.management import call_command

from authsvc import dialects
from authsvc.brokers.base import NAMES
from authsvc.core.access import Action
from authsvc.models import Account, AuditEntry, Denial, Grant
from authsvc.operation import denials, wire
from authsvc.operation.checks import Passage
from authsvc.operation.explain import explain, explain_login, wire_answers
from authsvc.operation.tried import MAX_RULES, Outcome
from devicehub.models import DeviceGroup, GroupMember
from fleet.models import WeatherStationDevice
from rig.cast import Cast
from rig.oracles import reads_as_allow
from rig.questions import good

pytestmark = pytest.mark.sqlite_first

OTHERS = "things/weatherstation/STATION-002/data"


@pytest.fixture
def why(loop, transactional_db):
    return lambda *question, **options: loop.run(explain(*question, **options))


def outcomes(found):
    return {(rule.name, rule.actions.value): rule.outcome for rule in found.rules}


def test_a_grant_outside_its_period_is_named_with_its_time(station: Cast, why):
    roof = DeviceGroup.objects.create(slug="roof", name="Roof")
    roof.members.create(device_key="weatherstation/STATION-001")
    later = Grant.objects.create(
        subject="group:roof", actions="publish", filter="x", valid_from=datetime(2100, 1, 1, tzinfo=UTC)
    )
    ended = Grant.objects.create(
        subject="everyone", actions="receive", filter="x", valid_until=datetime(2000, 1, 1, tzinfo=UTC)
    )

    found = why(station.username, Action.PUBLISH, "x")

    assert outcomes(found)[f"grant {later.pk}", "publish"] is Outcome.NOT_NOW
    assert found.nearest == f"grant {later.pk}: publish x (Not in force until 2100-01-01 00:00:00 UTC.)"
    sentences = {rule.name: rule.sentence for rule in found.rules}
    assert sentences[f"grant {ended.pk}"] == "Its period ended at 2000-01-01 00:00:00 UTC."
    later.valid_from = None
    later.save()
    assert why(station.username, Action.PUBLISH, "x").allowed


def test_each_rule_says_why_it_does_not_fit(station: Cast, why):
    Grant.objects.create(subject="type:weatherstation", actions="subscribe", filter="site/+/frost")
    Grant.objects.create(subject="everyone", actions="publish", filter="x/{client_id}")
    Grant.objects.create(subject="everyone", effect="deny", actions="all", filter="things/+/+/cmd")

    found = why(station.username, Action.PUBLISH, OTHERS)

    sentences = {rule.sentence for rule in found.rules}
    assert "Level 3 is STATION-001, not STATION-002." in sentences
    assert "It is for subscribe only." in sentences
    assert "A placeholder of it has no value here." in sentences
    assert {rule.subject for rule in found.rules} == {"own topics", "type:weatherstation", "everyone"}
    assert Outcome.DECIDES not in outcomes(found).values()


def test_the_differing_level_of_the_nearest_rule_is_marked(station: Cast, why):
    found = why(station.username, Action.PUBLISH, OTHERS)

    assert found.closest.name == "own data"
    marks = [(level.text, level.differs) for level in found.closest.comparison.rule]
    assert marks == [("things", False), ("weatherstation", False), ("STATION-001", True), ("data", False)]
    assert [level.text for level in found.closest.comparison.asked if level.differs] == ["STATION-002"]


@pytest.mark.parametrize(
    ("effect", "reason", "passage"),
    [("allow", "grant", Passage.ALLOWS), ("deny", "deny_grant", Passage.REFUSES)],
)
def test_the_rule_that_decided_is_the_closest(station: Cast, why, effect, reason, passage):
    rule = Grant.objects.create(
        subject="type:weatherstation", effect=effect, actions="all", filter="things/#"
    )

    found = why(station.username, Action.PUBLISH, OTHERS)

    assert (found.reason, found.closest.name) == (reason, f"grant {rule.pk}")
    assert found.closest.outcome is Outcome.DECIDES
    assert next(check.passage for check in found.checks if check.passage is not Passage.PASSES) is passage


def test_what_is_covered_twice_names_one_that_decided(station: Cast, why):
    Grant.objects.create(subject="everyone", actions="all", filter="things/#")

    found = why(station.username, Action.PUBLISH, station.topic("data"))

    decided = [rule.name for rule in found.rules if rule.outcome is Outcome.DECIDES]
    assert decided == ["own data"] == [found.rule]
    assert "It covers this too." in {rule.sentence for rule in found.rules}


@pytest.mark.parametrize(
    ("topic", "step"),
    [("a/\x00", "Topic"), ("a/+", "Topic"), ("$CONTROL/x", "Reserved"), ("a/b", "Allow rules")],
)
def test_the_step_that_refuses_is_the_last_one_reached(station: Cast, why, topic, step):
    found = why(station.username, Action.PUBLISH, topic)

    (refusing,) = [check.name for check in found.checks if check.passage is Passage.REFUSES]
    assert refusing == step
    after = found.checks[[check.name for check in found.checks].index(step) + 1 :]
    assert {check.passage for check in after} <= {Passage.NOT_REACHED}


@pytest.mark.sqlite_first  # The changes are those of test_explain_login.py.
@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, None),
        ({"is_active": False}, "Enabled"),
        ({"mqtt_password_hash": ""}, "Password"),
        ({"mqtt_username": "other"}, "Identity"),
    ],
    ids=str,
)
def test_the_steps_of_a_login(station: Cast, loop, changes, step):
    WeatherStationDevice.objects.update(**changes)

    found = loop.run(explain_login(station.username))

    assert found.allowed is (step is None)
    refusing = [check.name for check in found.checks if check.passage is Passage.REFUSES]
    assert refusing == ([step] if step else [])


def test_the_client_id_is_a_step(station: Cast, loop):
    found = loop.run(explain_login(station.username, "STATION-002"))

    assert [check.name for check in found.checks if check.passage is Passage.REFUSES] == ["Client id"]


def test_rules_are_bounded(station: Cast, why):
    Grant.objects.bulk_create(
        [Grant(subject="everyone", actions="publish", filter=f"x/{n}") for n in range(MAX_RULES)]
    )
    near = Grant.objects.create(subject="everyone", actions="publish", filter="a/b/c")

    found = why(station.username, Action.PUBLISH, "a/b/d")

    assert len(found.rules) == MAX_RULES
    assert found.rules_left_out == 1 + 5
    assert found.closest.name == f"grant {near.pk}"


def test_nothing_is_written_or_counted(station: Cast, loop):
    """An explanation is not a question of a broker."""
    before = WeatherStationDevice.objects.values().get()
    for topic in (station.topic("data"), OTHERS, "\ud800", "x" * 70_000):
        found = loop.run(explain(station.username, Action.PUBLISH, topic))
        loop.run(wire_answers(found))
    loop.run(wire_answers(loop.run(explain_login(station.username))))

    assert denials._pending == {}
    assert not Denial.objects.exists()
    assert not AuditEntry.objects.filter(action__startswith="explain").exists()
    assert WeatherStationDevice.objects.values().get() == before


class TestWireAnswers:
    def test_every_dialect_has_a_name(self):
        assert list(NAMES) == [dialect.name for dialect in dialects.DIALECTS]
        assert set(wire._CALLS) == set(NAMES)

    # In JWT mode the client's token is the question, and VerneMQ needs a header, which test_vernemq has.
    @pytest.mark.sqlite_first  # The dialects share their SQL.
    @pytest.mark.parametrize("name", sorted(set(NAMES) - {"jwt", "vernemq"}))
    def test_they_are_the_answers_that_the_gateway_gives(self, name, station: Cast, loop, ask):
        """Status, type and body are equal for a question that is allowed and for one that is not."""
        for topic in (station.topic("data"), OTHERS):
            found = loop.run(explain(station.username, Action.PUBLISH, topic, station.username))
            (answer,) = loop.run(wire_answers(found, (name,)))
            path = answer.path
            fields = good(path, station)
            if "routing_key" in fields:
                fields["routing_key"] = topic.replace("/", ".")
            else:
                fields["topic"] = topic
            reply = ask(path, **fields)
            assert (answer.status, answer.body) == (reply.status_code, reply.text)
            assert answer.allowed is found.allowed

    @pytest.mark.sqlite_first  # The dialects share their SQL.
    @pytest.mark.parametrize("name", NAMES)
    def test_an_allow_and_a_deny_read_as_such(self, name, station: Cast, loop):
        for topic in (station.topic("data"), OTHERS):
            found = loop.run(explain(station.username, Action.PUBLISH, topic))
            (answer,) = loop.run(wire_answers(found, (name,)))

            assert answer.allowed is found.allowed
            reply = dialects.base.Reply(answer.status, answer.body.encode(), answer.content_type)
            assert reads_as_allow(answer.path, reply) is found.allowed

    def test_only_brokers_that_number_receive_ask_about_deliveries(self, station: Cast, loop):
        asking = {
            dialect.name
            for dialect in dialects.DIALECTS
            for module in [__import__(dialect.render.__module__, fromlist=["x"])]
            if Action.RECEIVE in getattr(module, "ACC", {}).values()
        }
        assert asking == wire.ASK_ABOUT_DELIVERIES
        found = loop.run(explain(station.username, Action.RECEIVE, station.topic("cmd")))
        answers = {answer.dialect: answer for answer in loop.run(wire_answers(found))}
        assert {name for name, answer in answers.items() if answer.status is not None} == asking

    @pytest.mark.parametrize("action", ["connect", "publish", "subscribe"])
    def test_a_broker_gets_no_more_than_it_would(self, action, station: Cast, loop):
        """No hash and no password is in an answer, and a stranger's answer is that of a wrong password."""
        secret = WeatherStationDevice.objects.get().mqtt_password_hash
        if action == "connect":
            found = loop.run(explain_login(station.username))
            strange = loop.run(explain_login("stranger"))
        else:
            found = loop.run(explain(station.username, Action(action), station.topic("cmd")))
            strange = loop.run(explain("stranger", Action(action), station.topic("cmd")))
        for answer in loop.run(wire_answers(found)):
            assert secret not in answer.body
        assert not any(answer.allowed for answer in loop.run(wire_answers(strange)))

    def test_a_grant_of_a_group_counts_for_every_broker(self, station: Cast, loop):
        group = DeviceGroup.objects.create(slug="crew", name="Crew")
        GroupMember.objects.create(group=group, device_key="weatherstation/STATION-001")
        Grant.objects.create(subject="group:crew", actions="publish", filter="crew/x")
        found = loop.run(explain(station.username, Action.PUBLISH, "crew/x"))

        assert found.allowed
        assert all(answer.allowed for answer in loop.run(wire_answers(found)))

    def test_a_comma_is_two_topics_for_nanomq(self, station: Cast, loop):
        Grant.objects.create(subject="everyone", actions="publish", filter="a,b")
        found = loop.run(explain(station.username, Action.PUBLISH, "a,b"))
        allowed = {answer.dialect: answer.allowed for answer in loop.run(wire_answers(found))}

        assert found.allowed
        assert allowed["go-auth"] is True
        assert allowed["nanomq"] is False

    @pytest.mark.parametrize("topic", ["\ud800", "x" * 70_000, "a\x00b", "", "/" * 10_000, "+/#/+"])
    def test_hostile_topics_are_answered(self, topic, station: Cast, loop):
        for action in Action:
            found = loop.run(explain(station.username, action, topic))
            assert not found.allowed
            assert not any(a.allowed for a in loop.run(wire_answers(found)) if a.status is not None)


class TestCommand:
    def run(self, *arguments):
        out = StringIO()
        with contextlib.suppress(SystemExit):
            call_command("explain", *arguments, stdout=out)
        return out.getvalue()

    def test_rules_and_the_wire_are_printed_on_demand(self, station: Cast):
        text = self.run("STATION-001", "publish", OTHERS, "--rules", "--broker", "go-auth")

        assert "  step     refuses      Allow rules: No rule allows this." in text
        assert re.search(
            r"  rule     differs +allow own data: publish \S+ \(own topics\): Level 3 is STATION-001", text
        )
        assert '  wire     mosquitto, go-auth gets 403 {"ok":false,"error":"denied"}' in text
        assert "step" not in self.run("STATION-001", "publish", OTHERS)

    def test_a_broker_that_does_not_ask_says_so(self, station: Cast):
        text = self.run("STATION-001", "receive", station.topic("cmd"), "--broker", "emqx")

        assert "EMQX 5 and 6 does not ask about this" in text

    def test_json_has_all_of_it(self, station: Cast):
        found = json.loads(self.run("STATION-001", "publish", OTHERS, "--json", "--broker", "emqx"))

        assert found["closest"]["comparison"]["asked"][2] == {
            "text": "STATION-002",
            "differs": True,
            "is_there": True,
        }
        assert found["wire"][0]["body"] == '{"result":"deny"}'
        assert {check["passage"] for check in found["checks"]} == {"passes", "refuses"}

    def test_a_superuser_has_no_rules_to_try(self, transactional_db):
        Account.objects.create(username="root", is_superuser=True)

        found = json.loads(self.run("root", "publish", OTHERS, "--json"))

        assert (found["allowed"], found["rules"]) == (True, [])
