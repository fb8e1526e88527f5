"""The rows of endpoints of a Leshan server, and storing while the database is away."""

import threading
from datetime import timedelta

import pytest
from django.db import OperationalError

from devicehub.backoff import Backoff
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.leshan import follower as follower_module
from devicehub.lwm2m.leshan import reports, storing
from devicehub.lwm2m.leshan.address import Address
from devicehub.lwm2m.leshan.follower import Follower
from devicehub.lwm2m.leshan.plans import wish
from devicehub.lwm2m.leshan.process import identify
from devicehub.lwm2m.leshan.server import LeshanServer
from devicehub.lwm2m.leshan.storing import Storing
from devicehub.lwm2m.models import Endpoint, Event, Resource, ResourceValue
from devicehub.lwm2m.names import device_ids
from devicehub.messages.message import Outcome
from devicehub.models import QuarantinedMessage
from rig.fake_leshan import TEMPERATURE, fake_leshan
from rig.hub import eventually
from rig.messages import NOW

PATH = "/3303/0/5700"
NAME = "urn:dev:Tür 7"


def a_storing(**options):
    given = {"notify": lambda batch: None, "is_stopping": lambda: False, "identify": device_ids}
    return Storing(KIND, **{**given, **options})


@pytest.fixture
def endpoint(db):
    return Endpoint.objects.create(device_id="door-7", endpoint_name=NAME)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(follower_module, "AWAY", Backoff((0.01,)))
    monkeypatch.setattr(follower_module, "POLL", 0.01)
    monkeypatch.setattr(storing, "RETRY", Backoff((0.01,)))
    monkeypatch.setattr(storing, "POLL", 0.01)
    # A test's transaction belongs to its connection.
    monkeypatch.setattr(storing.connections, "close_all", lambda: None)


@pytest.fixture
def follow(quick):
    """Return the function that follows a fake while *play* runs in a thread; it is given a wait for stored messages."""

    def run(fake, play, **options):
        kept = a_storing(**options)
        server = LeshanServer(Address.parse(fake.url))
        follower = Follower(server, [wish("3303/*/5700")], kept)
        failures = []

        def told():
            try:
                play(
                    lambda count: (
                        eventually(lambda: kept.outcomes.total() == count) or pytest.fail(kept.outcomes)
                    )
                )
            except BaseException as error:
                failures.append(error)
            finally:
                follower.stop()

        thread = threading.Thread(target=told)
        thread.start()
        follower.run()
        thread.join()
        assert failures == []
        return kept.outcomes

    return run


def test_registrations_values_and_ends_are_stored(endpoint, follow):
    with fake_leshan() as fake:
        fake.nodes[NAME, PATH] = TEMPERATURE
        registration = fake.register(NAME, lifetime=300, queue_mode=True)

        def play(await_stored):
            await_stored(2)  # The registration, and the first value of the observation.
            fake.notify(NAME, PATH, TEMPERATURE | {"value": "21.5"})
            fake.send(NAME, {PATH: TEMPERATURE | {"value": "22.5"}})
            await_stored(4)

        assert follow(fake, play) == {Outcome.STORED: 4}

    endpoint.refresh_from_db()
    assert (endpoint.registered, endpoint.lifetime, endpoint.queue_mode) == (True, 300, True)
    assert endpoint.registration_id == registration["registrationId"]
    assert endpoint.object_versions == {"3": "1.2", "3303": "1.1"}
    assert endpoint.status == "online"
    assert Resource.objects.get(device=endpoint, path="3303/0/5700").value == 22.5
    assert sorted(ResourceValue.objects.values_list("number", flat=True)) == [20.0, 21.5, 22.5]
    assert list(Event.objects.order_by("pk").values_list("type", flat=True)) == [
        "registration",
        "notification",
        "notification",
        "send",
    ]


def test_an_end_takes_the_endpoint_offline_and_a_return_does_not(endpoint, follow):
    with fake_leshan() as fake:
        fake.register(NAME, links=[])

        def play(await_stored):
            await_stored(1)
            fake.register(NAME, links=[])
            await_stored(2)
            assert eventually(lambda: fake.streams == 1)

        follow(fake, play)
        endpoint.refresh_from_db()
        assert (endpoint.status, endpoint.registered) == ("online", True)

        follow(fake, lambda await_stored: (await_stored(1), fake.deregister(NAME), await_stored(2)))

    endpoint.refresh_from_db()
    assert (endpoint.status, endpoint.registered) == ("offline", False)


def test_a_restart_of_the_server_changes_no_status(endpoint, follow):
    with fake_leshan() as fake:
        fake.register(NAME, links=[])

        def play(await_stored):
            await_stored(1)
            fake.restart()
            assert eventually(lambda: fake.streams == 1)

        follow(fake, play)

    endpoint.refresh_from_db()
    assert (endpoint.status, endpoint.registered) == ("online", True)


def test_a_registration_that_is_listed_again_is_an_update(endpoint, follow):
    """The process starts again, and knows no registrations."""
    with fake_leshan() as fake:
        fake.register(NAME, links=[])
        for _ in range(2):
            follow(fake, lambda await_stored: await_stored(1))

    assert list(Event.objects.order_by("pk").values_list("detail", flat=True)) == ["registered", "updated"]
    endpoint.refresh_from_db()
    assert (endpoint.status, endpoint.registered) == ("online", True)


def test_an_unknown_endpoint_is_adopted_if_the_settings_allow_it(db, follow, settings):
    settings.DEVICEHUB_LWM2M_ADOPT = True
    with fake_leshan() as fake:
        fake.register(NAME, links=[])

        outcomes = follow(fake, lambda await_stored: await_stored(1), identify=identify)

    assert outcomes == {Outcome.STORED: 1}
    assert Endpoint.objects.get().endpoint_name == NAME


def test_an_unknown_endpoint_is_quarantined(db, follow):
    with fake_leshan() as fake:
        fake.register("stranger", links=[])
        fake.register("Tür 7/a", links=[])

        outcomes = follow(fake, lambda await_stored: await_stored(2))

    assert outcomes == {Outcome.FAILED: 2}
    assert not Endpoint.objects.exists()
    rows = QuarantinedMessage.objects.order_by("pk").values_list("device_key", "user_properties")
    assert list(rows) == [
        ("lwm2m/stranger", {"endpoint": "stranger"}),
        ("lwm2m/T-r-7-a-e868a87a1837beaa", {"endpoint": "Tür 7/a"}),
    ]


def a_report(number):
    return reports.values(
        NAME, "send", {PATH: TEMPERATURE | {"value": str(number)}}, NOW + timedelta(seconds=number)
    )


def failing(monkeypatch, fails):
    """Let the pipeline fail while *fails* returns true for the number of messages."""
    real, sizes = storing.pipeline, []

    def pipeline(messages, **options):
        sizes.append(len(messages))
        if fails(len(messages)):
            raise OperationalError("the database is away")
        return real(messages, **options)

    monkeypatch.setattr(storing, "pipeline", pipeline)
    return sizes


def test_while_the_database_is_away_storing_is_tried_again(endpoint, quick, monkeypatch):
    left = iter([True] * 5)
    sizes = failing(monkeypatch, lambda _: next(left, False))

    a_storing()([a_report(number) for number in range(10)])

    assert sizes == [10, 5, 2, 1, 1, 1, 2, 4, 3]
    assert sorted(ResourceValue.objects.values_list("number", flat=True)) == list(range(10))


def test_at_the_end_storing_is_given_up_and_counted(endpoint, quick, monkeypatch):
    failing(monkeypatch, lambda _: True)
    monkeypatch.setattr(storing, "GRACE", 0.05)
    kept = a_storing(is_stopping=lambda: True)

    kept([a_report(1), a_report(2)])

    assert kept.lost == 2


def test_messages_that_are_stored_are_not_stored_again(endpoint, quick):
    def fail(_):
        raise OperationalError("of the notification, after the commit")

    with pytest.raises(OperationalError, match="after the commit"):
        a_storing(notify=fail)([a_report(1)])

    assert ResourceValue.objects.count() == 1


def test_a_database_without_tables_is_not_waited_for(endpoint, quick, monkeypatch):
    def lacks(names):
        raise OperationalError("no such table: lwm2m_endpoint")

    with pytest.raises(OperationalError, match="no such table"):
        a_storing(identify=lacks)([a_report(1)])
