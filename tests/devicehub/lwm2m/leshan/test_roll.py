"""Registrations, ends, returns, sleep and lists: what is reported, and which endpoint gets requests."""

from datetime import UTC, datetime, timedelta

import pytest

from devicehub.lwm2m.leshan import roll as roll_module
from devicehub.lwm2m.leshan.intake import Arrived, ListBegins, Listed, ListEnds, Replied
from devicehub.lwm2m.leshan.plans import Action, Step, wish
from devicehub.lwm2m.leshan.roll import Roll
from devicehub.lwm2m.leshan.server import Answer, Result
from devicehub.lwm2m.leshan.shapes import Deregistered, Presence, Registered, Registration, Updated, Values

NOW = datetime(2026, 11, 29, 6, 0, tzinfo=UTC)
PATH = "/3303/0/5700"
NODE = {"kind": "singleResource", "id": 5700, "type": "FLOAT", "value": "20.0"}
OBSERVE, READ = Step(Action.OBSERVE, (PATH,)), Step(Action.READ, ("/3/0/3",))


def a_registration(name="first", at=1000, *, endpoint="urn:dev:a", links="</3/0>,</3303/0>", **others):
    members = {
        "last_update": at,
        "lifetime": 60,
        "version": "1.1",
        "binding": "U",
        "queue_mode": False,
        "is_sleeping": False,
        "instances": {3: (0,), 3303: (0,)},
        **others,
    }
    return Registration(endpoint=endpoint, id=name, at=at, links=links, **members)


class Followed:
    """A roll with a clock, whose reports and questions are kept."""

    def __init__(self, *wishes):
        self.requested = []
        self.now = NOW
        self.roll = Roll(
            [wish(text) for text in wishes or ["3303/*/5700"]], lambda *one: self.requested.append(one)
        )

    def says(self, *contents):
        """Handle *contents*; return the contents of the reports."""
        reports = [
            report for content in contents for report in self.roll.handle(Arrived(content, self.now, 0))
        ]
        return [dict(report.content) for report in [*reports, *self.roll.due(self.now)]]

    def later(self, seconds, **options):
        self.now += timedelta(seconds=seconds)
        return [dict(report.content) for report in self.roll.due(self.now, **options)]

    def lists(self, *registrations):
        return self.says(ListBegins(), *map(Listed, registrations), ListEnds())

    def answers(self, *pairs, name="first"):
        """Answer the last question with (step, result) pairs; return the contents of the reports."""
        return self.says(
            *(
                Replied(
                    "urn:dev:a",
                    name,
                    step,
                    Answer(result, dict.fromkeys(step.paths, NODE) if result is Result.VALUES else {}),
                    number == len(pairs),
                )
                for number, (step, result) in enumerate(pairs, 1)
            )
        )


@pytest.fixture
def followed():
    return Followed()


def registered(name, at=1000):
    return {"registration": a_registration(name, at).members()}


def test_a_registration_is_reported_and_its_endpoint_gets_requests(followed):
    assert followed.says(Registered(a_registration())) == [registered("first")]
    assert followed.requested == [("urn:dev:a", "first", (OBSERVE, READ))]


def test_the_first_value_of_an_observation_counts_as_a_notification(followed):
    followed.says(Registered(a_registration()))

    assert followed.answers((OBSERVE, Result.VALUES), (READ, Result.VALUES)) == [
        {"event": "notification", "values": {PATH: NODE}},
        {"event": "read", "values": {"/3/0/3": NODE}},
    ]
    followed.later(1000)
    assert len(followed.requested) == 1


def test_a_value_that_a_notification_has_overtaken_is_left_out(followed):
    followed.says(Registered(a_registration()))

    newer = {"kind": "singleResource", "id": 5700, "type": "FLOAT", "value": "21.0"}
    assert followed.says(Values("urn:dev:a", "notification", {PATH: newer})) == [
        {"event": "notification", "values": {PATH: newer}}
    ]
    assert followed.answers((OBSERVE, Result.VALUES)) == []


def test_an_end_is_reported_after_a_moment(followed):
    followed.says(Registered(a_registration()))

    assert followed.says(Deregistered(a_registration())) == []
    assert followed.later(0.5) == []
    assert followed.later(0.6) == [{"deregistration": {"id": "first", "at": 1000}}]
    assert followed.later(10) == []


def test_a_return_that_waits_behind_a_slow_database_is_no_end(followed):
    """Both were received a minute ago, and the end was the last of its batch."""
    followed.says(Registered(a_registration()))
    received = followed.now
    followed.now += timedelta(seconds=60)
    followed.roll.handle(Arrived(Deregistered(a_registration()), received, 0))

    assert followed.later(0) == []
    assert followed.says(Registered(a_registration("second", 2000))) == [registered("second", 2000)]
    assert followed.later(10) == []


def test_an_end_is_reported_at_once_when_following_stops(followed):
    followed.says(Registered(a_registration()), Deregistered(a_registration()))

    assert followed.later(0, is_end=True) == [{"deregistration": {"id": "first", "at": 1000}}]


@pytest.mark.parametrize("is_swapped", [False, True])
def test_a_returning_client_is_never_offline(followed, is_swapped):
    """The end of the old registration and the new one arrive in either order."""
    followed.says(Registered(a_registration()))
    events = [Deregistered(a_registration()), Registered(a_registration("second", 2000))]

    assert followed.says(*(reversed(events) if is_swapped else events)) == [registered("second", 2000)]
    assert followed.later(10) == []
    assert [one[1] for one in followed.requested] == ["first", "second"]


def test_the_end_of_an_endpoint_that_is_not_known_is_reported_with_its_id(followed):
    """The database compares the id with that of its registration."""
    followed.says(Deregistered(a_registration()))

    assert followed.later(1.1) == [{"deregistration": {"id": "first", "at": 1000}}]


def test_an_answer_to_an_earlier_registration_ends_no_later_question(followed):
    followed.says(Registered(a_registration()), Registered(a_registration("second", 2000)))

    assert followed.answers((OBSERVE, Result.SILENT)) == []
    followed.later(1000)
    assert len(followed.requested) == 2


def test_an_update_is_reported_with_what_it_changed(followed):
    followed.says(Registered(a_registration()))
    updated = a_registration(last_update=2000, lifetime=90)

    assert followed.says(Updated(updated, frozenset({"lifetime"}))) == [
        {"update": {"id": "first", "lifetime": 90}}
    ]
    assert followed.says(Updated(updated, frozenset())) == [{"update": {"id": "first"}}]


def test_new_objects_of_an_update_are_observed(followed):
    followed.says(Registered(a_registration()))
    followed.answers((OBSERVE, Result.VALUES), (READ, Result.VALUES))
    links, instances = "</3/0>,</3303/0>,</3303/1>", {3: (0,), 3303: (0, 1)}

    followed.says(Updated(a_registration(links=links, instances=instances), frozenset({"links"})))

    assert followed.requested[1:] == [("urn:dev:a", "first", (Step(Action.OBSERVE, ("/3303/1/5700",)),))]


def test_an_update_of_a_missed_registration_is_a_registration(followed):
    assert followed.says(Updated(a_registration(), frozenset())) == [registered("first")]
    assert followed.says(Updated(a_registration("second", 2000), frozenset())) == [registered("second", 2000)]


def test_a_sleeping_endpoint_gets_requests_when_it_wakes_up(followed):
    sleeping = a_registration(is_sleeping=True, queue_mode=True)

    reports = followed.lists(sleeping)

    assert reports == [{"registration": sleeping.members()}, {"awake": False}]
    assert followed.requested == []
    assert not followed.roll.may_be_requested("urn:dev:a", "first")
    assert followed.says(Presence("urn:dev:a", is_awake=True)) == [{"awake": True}]
    assert len(followed.requested) == 1
    assert followed.roll.may_be_requested("urn:dev:a", "first")


def test_an_endpoint_that_fell_asleep_gets_requests_again_when_it_wakes_up(followed):
    followed.says(Registered(a_registration()))
    followed.answers((OBSERVE, Result.VALUES), (READ, Result.ASLEEP))
    followed.later(1000)
    assert len(followed.requested) == 1

    followed.says(Presence("urn:dev:a", is_awake=True))

    assert followed.requested[1:] == [("urn:dev:a", "first", (READ,))]


def test_an_endpoint_that_woke_up_before_the_answer_came_gets_requests_again(followed):
    followed.says(Registered(a_registration()), Presence("urn:dev:a", is_awake=True))
    followed.answers((OBSERVE, Result.ASLEEP))

    followed.later(11)

    assert len(followed.requested) == 2


def test_an_endpoint_that_woke_up_and_fell_asleep_waits_for_its_next_wakening(followed):
    followed.lists(a_registration(is_sleeping=True))
    followed.says(Presence("urn:dev:a", is_awake=True))
    followed.answers((OBSERVE, Result.ASLEEP))
    followed.later(1000)
    assert len(followed.requested) == 1

    followed.says(Presence("urn:dev:a", is_awake=True))
    assert len(followed.requested) == 2


def test_an_endpoint_that_wakes_up_gets_all_its_attempts_again(followed):
    followed.says(Registered(a_registration()))
    for _ in range(roll_module.MOST_ATTEMPTS):
        followed.answers((OBSERVE, Result.SILENT))
        followed.later(1000)
    assert len(followed.requested) == roll_module.MOST_ATTEMPTS

    followed.says(Presence("urn:dev:a", is_awake=True))
    followed.answers((OBSERVE, Result.SILENT))
    followed.later(10)

    assert len(followed.requested) == roll_module.MOST_ATTEMPTS + 2


def test_the_wakening_before_a_registration_is_not_reported(followed):
    assert followed.says(Presence("urn:dev:a", is_awake=True)) == []


def test_a_silent_endpoint_gets_requests_again_less_and_less_often(followed):
    followed.says(Registered(a_registration()))
    times = []
    for _ in range(1000):
        while len(times) < len(followed.requested):
            times.append((followed.now - NOW).total_seconds())
            followed.answers((OBSERVE, Result.SILENT))
        followed.later(1)

    assert times == [0, 10, 40, 160]

    followed.says(Updated(a_registration(last_update=2000), frozenset()))
    assert len(followed.requested) == 5


def test_a_refused_step_is_not_repeated(followed):
    followed.says(Registered(a_registration()))
    followed.answers((OBSERVE, Result.REFUSED), (READ, Result.REFUSED))
    followed.says(Updated(a_registration(last_update=2000), frozenset()))
    followed.later(1000)

    assert len(followed.requested) == 1


def test_a_refused_composite_observation_becomes_single_ones():
    followed = Followed("3303/0/5700+3/0/9")
    both = Step(Action.OBSERVE, (PATH, "/3/0/9"))
    followed.says(Registered(a_registration()))
    assert followed.requested[0][2] == (both, READ)

    followed.answers((both, Result.REFUSED), (READ, Result.VALUES))

    assert followed.requested[1][2] == tuple(both.singly())

    followed.answers(*((step, Result.VALUES) for step in both.singly()))
    followed.lists(a_registration())
    assert followed.requested[2][2] == (READ, *both.singly())


def test_an_unregistered_endpoint_is_left_to_its_next_event(followed):
    followed.says(Registered(a_registration()))
    followed.answers((OBSERVE, Result.UNREGISTERED))
    followed.later(1000)

    assert len(followed.requested) == 1


def test_an_empty_list_takes_nobody_offline(followed):
    followed.says(Registered(a_registration()))

    assert followed.lists() == []
    assert followed.later(1000) == []
    assert len(followed.roll) == 0


def test_a_list_reports_registrations_that_were_missed(followed):
    followed.says(Registered(a_registration()))

    assert followed.lists(a_registration("second", 2000)) == [registered("second", 2000)]


def test_a_list_reports_what_changed_meanwhile(followed):
    followed.says(Registered(a_registration()))
    links = "</3/0>,</3303/0>,</3303/1>"

    assert followed.lists(a_registration()) == []
    assert followed.lists(a_registration(last_update=2000)) == [{"update": {"id": "first"}}]
    assert followed.lists(a_registration(last_update=2000, links=links)) == [
        {"update": {"id": "first", "links": links}}
    ]
    assert followed.lists(a_registration(last_update=2000, links=links, is_sleeping=True)) == [
        {"awake": False}
    ]


def test_after_a_gap_in_the_stream_endpoints_get_requests_again(followed):
    """Notifications of that time are lost, and the answers bring the present values."""
    followed.says(Registered(a_registration()))
    followed.answers((OBSERVE, Result.VALUES), (READ, Result.VALUES))

    followed.lists(a_registration())

    assert followed.requested[1:] == [("urn:dev:a", "first", (OBSERVE, READ))]


def test_a_registration_that_the_list_named_already_is_reported_once(followed):
    followed.lists(a_registration())

    assert followed.says(Registered(a_registration())) == []
    assert len(followed.requested) == 1


def test_values_of_an_unknown_endpoint_are_reported(followed):
    assert followed.says(Values("stranger", "send", {PATH: NODE})) == [
        {"event": "send", "values": {PATH: NODE}}
    ]
    assert followed.says(Values("stranger", "send", {})) == []


def test_the_number_of_known_endpoints_is_bounded(followed, monkeypatch):
    monkeypatch.setattr(roll_module, "MOST_ENDPOINTS", 2)
    for number in range(4):
        assert followed.says(Registered(a_registration(endpoint=f"urn:dev:{number}")))

    assert len(followed.roll) == 2
    assert len(followed.requested) == 2
