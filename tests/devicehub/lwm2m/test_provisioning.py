"""Endpoints are devices: they are created like any other, and their endpoint name is unique too."""

import pytest
from django.core.management import CommandError, call_command

from devicehub import provisioning
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint
from devicehub.provisioning import IdentityTaken

pytestmark = pytest.mark.django_db


@pytest.fixture
def neighbour():
    """Return an endpoint whose endpoint name could be the device id of another one."""
    return Endpoint.objects.create(device_id="pump", endpoint_name="WEIR-002")


def test_a_device_id_that_is_the_endpoint_name_of_another_is_taken(neighbour):
    with pytest.raises(IdentityTaken, match=r"^lwm2m/WEIR-002: .* with this Endpoint name already exists$"):
        provisioning.create(KIND, "WEIR-002")

    assert provisioning.create(KIND, "WEIR-003")[0].endpoint_name == "WEIR-003"


def test_provision_devices_says_so_in_one_line(neighbour, tmp_path):
    output = tmp_path / "endpoints.json"
    with pytest.raises(CommandError, match="with this Endpoint name already exists"):
        call_command(
            *("provision_devices", "lwm2m", "--count", "3", "--prefix", "WEIR-", "--output", str(output)),
            verbosity=0,
        )

    assert list(Endpoint.objects.order_by("pk").values_list("device_id", flat=True)) == ["pump", "WEIR-001"]
