"""A meter whose tables exist for the module, and the check of one of its payloads."""

import pytest

from devicehub import DeviceType, Reading, StateField, reading_types
from devicehub.models import QuarantinedMessage
from rig.kinds import tables_of
from rig.meter import FAILED, is_as_sent, send, stored


@pytest.fixture(scope="module")
def meter_kind(module_database):
    """Yield a kind with a reading of each type, in tables of its own."""

    class Meter(DeviceType):
        temperature = Reading(type=reading_types.FLOAT, unit="Cel", range=(-40, 80))
        humidity = Reading(type=reading_types.FLOAT, unit="%RH", range=(0, 100))
        amount = Reading(type=reading_types.FLOAT)
        count = Reading(type=reading_types.INTEGER)
        low = Reading(type=reading_types.INTEGER, range=(None, 10))
        wet = Reading(type=reading_types.BOOLEAN)
        label = Reading(type=reading_types.STRING)
        extra = Reading(type=reading_types.JSON)
        raw = Reading(type=reading_types.BINARY)

        layout = StateField(type="json", default={})
        serviced_at = StateField(type="datetime")
        depth = StateField(type="float")

    with tables_of(Meter, module_database) as kind:
        yield kind


@pytest.fixture
def meter(meter_kind, db):
    return meter_kind.device_model.objects.create(device_id="METER-001")


@pytest.fixture
def becomes(meter):
    """Return the function that sends the payload of a table's row, and compares outcome and stored rows with it."""

    def check(row):
        outcome = send(row.body, content_type=row.content_type)

        message = meter.messages.get()
        assert (outcome, message.notes, stored(meter)) == (row.outcome, row.notes, row.rows), (
            message.processing_error
        )
        quarantined = list(QuarantinedMessage.objects.values_list("reason", flat=True))
        assert quarantined == ([row.reason or "no_value"] if outcome is FAILED else [])
        assert message.outcome == outcome
        assert is_as_sent(message, row.body)

    return check
