"""Registrations compared with the stored one of their endpoint: which of them is about the present one."""

from datetime import timedelta

import pytest

from devicehub.lwm2m.inbox import registrations
from devicehub.lwm2m.inbox.registrations import Registration
from devicehub.lwm2m.models import Endpoint
from devicehub.messages.message import Notes
from rig.messages import HOUR, NOW

SECOND = timedelta(seconds=1)


def apply(endpoint, word, name="", at=None, received=NOW, **columns):
    return registrations.apply(Registration(word, name, at, columns=columns), endpoint, received)


@pytest.fixture
def endpoint():
    """Return an endpoint that a server registered an hour ago, not saved."""
    made = Endpoint(device_id="urn:dev:a")
    links = {"object_versions": {"3303": "1.1"}, "object_links": ["/3303/0"]}
    assert apply(made, "registration", "first", NOW - HOUR, NOW - HOUR, lifetime=60, **links) == "registered"
    return made


def test_an_id_without_a_time_names_the_present_registration(endpoint):
    assert apply(endpoint, "update", "first") == "updated"
    assert apply(endpoint, "update", "other") == "outdated"
    assert apply(endpoint, "deregistration", "other") == "outdated"
    assert apply(endpoint, "deregistration", "first") == "deregistered"


def test_a_registration_without_a_time_replaces_one_with_another_id(endpoint):
    assert apply(endpoint, "registration", "second") == "registered"
    assert (endpoint.registration_id, endpoint.registered_at) == ("second", NOW)


def test_a_registration_without_an_id_does_not_keep_that_of_before(endpoint):
    """Its end comes without an id, too, and its lifetime counts from the messages of the endpoint itself."""
    assert apply(endpoint, "registration") == "registered"
    assert endpoint.registration_id == ""
    assert apply(endpoint, "update") == "updated"
    assert endpoint.registration_id == ""


def test_an_update_without_an_id_keeps_it(endpoint):
    apply(endpoint, "update")

    assert endpoint.registration_id == "first"


def test_a_new_registration_has_no_member_of_the_one_before(endpoint):
    apply(endpoint, "registration", "second", NOW, binding="UQ", queue_mode=True)
    assert (endpoint.lifetime, endpoint.object_versions, endpoint.object_links) == (86_400, {}, [])

    apply(endpoint, "registration", "third", NOW + SECOND)
    assert (endpoint.binding, endpoint.queue_mode, endpoint.lwm2m_version) == ("", False, "")


def test_a_message_that_is_stored_late_does_not_shorten_a_registration(endpoint):
    apply(endpoint, "update", received=NOW)
    apply(endpoint, "update", received=NOW - 2 * SECOND)

    assert endpoint.last_registration == NOW


@pytest.mark.parametrize("word", ["registration", "update", "deregistration"])
def test_each_of_them_ends_the_sleep(endpoint, word):
    endpoint.sleeping = True

    apply(endpoint, word)

    assert not endpoint.sleeping


@pytest.mark.parametrize(
    "members", [{"queue_mode": False, "binding": "UQ"}, {"binding": "UQ", "queue_mode": False}]
)
def test_the_queue_mode_that_a_server_names_counts_more_than_the_binding(members):
    found = registrations.read({"registration": members}, Notes())

    assert found.columns == {"queue_mode": False, "binding": "UQ"}


def test_more_links_than_are_kept_are_left_out_with_a_note():
    links = ",".join(f"</3303/{number}>" for number in range(registrations.MOST_LINKS + 1))
    notes = Notes()

    assert registrations.read({"update": {"links": links, "lifetime": 5}}, notes).columns == {"lifetime": 5}
    assert list(notes) == ["links: has more than 1000 links"]
