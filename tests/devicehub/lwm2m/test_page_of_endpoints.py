"""The how-to page about endpoints: its messages are stored, in its order, as it says."""

import json

import pytest
from django.core.management import call_command

from devicehub.lwm2m.models import Endpoint, Resource
from rig.messages import STORED, fresh, send
from rig.pages import blocks, marked, page

pytestmark = pytest.mark.django_db
HOW_TO = "how-to/lwm2m.md"


def test_the_messages_of_the_page_are_stored_as_it_says(tmp_path):
    [command] = blocks(page(HOW_TO), "sh", "lwm2m provisioning")
    file = tmp_path / "endpoints.json"
    call_command(*command.replace("var/endpoints.json", str(file)).split()[2:], verbosity=0)
    endpoint = Endpoint.objects.get(device_id="WEIR-001")
    assert json.loads(file.read_text())[0]["topics"]["status"] == "things/lwm2m/WEIR-001/status"

    states = []
    for content in map(json.loads, marked(page(HOW_TO), "lwm2m endpoint")):
        about = "data" if isinstance(content, list) else "status"
        assert send(endpoint, content, about) == STORED
        now = fresh(endpoint)
        states.append((now.registered, now.sleeping, now.lifetime))
    [payload] = marked(page(HOW_TO), "lwm2m endpoint in TLV")
    in_tlv = {"content_type": "application/vnd.oma.lwm2m+tlv", "user_properties": (("path", "/3303/0"),)}
    assert send(endpoint, bytes.fromhex(payload), **in_tlv) == STORED

    assert states[:4] == [
        (True, False, 86_400),
        (True, False, 3_600),
        (True, True, 3_600),
        (False, False, 3_600),
    ]
    stored = {one.path: one.value for one in Resource.objects.filter(device=endpoint)}
    assert stored == {
        "3303/0/5700": 25.5,
        "3303/0/5601": 9.6,
        "3303/0/5701": "Cel",
        "3304/0/5700": 66.0,
    }
