"""Types of devices over the API, and the explanation of a decision about a device."""

import pytest

from devicehub import provisioning, roles
from devicehub.kinds.registry import registry
from rig.programs import person, program

pytestmark = pytest.mark.sqlite_first

TYPES = "/api/types/"


@pytest.mark.django_db
def test_the_declarations_are_listed_in_pages():
    caller = program(person("ada"))
    page = caller.get(TYPES, limit=2, fields="type").json()
    assert page["results"] == [{"type": "irrigationvalve"}, {"type": "lwm2m"}]
    rest = caller.get(page["next"]).json()
    assert (rest["next"], rest["results"]) == (None, [{"type": "weatherstation"}])
    assert caller.get(rest["previous"]).json()["results"] == page["results"]


@pytest.mark.django_db
def test_a_type_has_its_readings_commands_and_states():
    valve = program(person("ada")).get(f"{TYPES}irrigationvalve/").json()
    flow = valve["readings"][0]
    assert (flow["name"], flow["unit"], flow["minimum"], flow["maximum"]) == ("flow", "l/s", 0, 20)
    assert valve["commands"][0]["parameters"][0] == {"name": "opening", "type": "integer"}
    assert valve["state_fields"][0]["choices"][0] == {"value": "automatic", "label": "automatic"}
    assert valve["topics"][0]["topic"] == "things/irrigationvalve/{device_id}/data"
    assert (valve["client_id"], valve["heartbeat_interval"]) == ("bound", 900)


@pytest.mark.django_db
def test_a_type_without_the_permission_is_not_found():
    nina = program(person("nina", ""))
    assert nina.get(TYPES).json()["results"] == []
    assert nina.get(f"{TYPES}irrigationvalve/").status_code == 404
    assert program(person("ada")).get(f"{TYPES}toaster/").status_code == 404


@pytest.mark.django_db(transaction=True)
def test_a_decision_is_explained():
    """Its own topic is allowed by its own rule; another one is refused, with the nearest rule."""
    roles.install()
    device, _ = provisioning.create(registry.get("weatherstation"), "STATION-1")
    path, caller = "/api/devices/weatherstation/STATION-1/access/", program(person("ada"))

    own = caller.get(path, action="publish", topic="things/weatherstation/STATION-1/data").json()
    other = caller.get(path, action="publish", topic="things/weatherstation/STATION-1/cmd").json()

    assert (own["allowed"], own["reason"], own["rule"]) == (True, "grant", "own data")
    assert {answer["allowed"] for answer in own["wire"]} == {True}
    assert (other["allowed"], other["reason"]) == (False, "no_grant")
    assert other["nearest"].startswith("own ")
    assert caller.get(path, action="connect", fields="allowed").json() == {"allowed": True}
    assert caller.get(path, action="publish").status_code == 400
    assert caller.get(path, action="fly", topic="x").status_code == 400
    device.mqtt_username = None
    device.save()
    assert caller.get(path, action="connect").status_code == 409
