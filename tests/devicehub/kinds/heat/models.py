"""Heat meters: each value is a row, under a key without a declaration."""

from django.db import models
from django.db.models import OuterRef, Subquery

from devicehub import Command, Reading
from devicehub.kinds.identifiers import is_text
from devicehub.kinds.pages import Pages
from devicehub.kinds.registry import Kind, registry
from devicehub.kinds.store import Latest
from devicehub.messages.decode import Decoded, parse_time
from devicehub.messages.message import FailureReason, Unreadable
from devicehub.messages.validate import InvalidReading, check_number
from devicehub.models import BaseDevice, BaseMessage


class HeatMeter(BaseDevice):
    class Meta(BaseDevice.Meta):
        verbose_name = "Heat Meter"


class HeatMessage(BaseMessage):
    device = models.ForeignKey(HeatMeter, models.CASCADE, related_name="messages", db_index=False)

    class Meta(BaseMessage.Meta):
        constraints = [models.UniqueConstraint(fields=["device", "digest"], name="heat_message_key")]


class HeatValue(models.Model):
    device = models.ForeignKey(HeatMeter, models.CASCADE, related_name="heat_values")
    timestamp = models.DateTimeField(db_index=True)
    key = models.CharField(max_length=64)
    value = models.FloatField()

    class Meta:
        indexes = [models.Index(fields=["device", "key", "-timestamp"], name="heat_value_newest")]

    def __str__(self):
        return f"{self.key}: {self.value}"


class HeatStore:
    models = (HeatValue,)

    def read(self, document, received_at):
        if not isinstance(document.content, dict):
            raise Unreadable(FailureReason.NOT_A_READING, "a heat meter sends an object")
        decoded, values, moment = Decoded(received_at), {}, None
        for key, value in document.content.items():
            if key == "timestamp":
                moment = parse_time(value, received_at, decoded.notes)
            elif not is_text(key) or len(key) > 64:
                decoded.notes.append("a key has more than 64 characters, or NUL")
            else:
                try:
                    values[key] = check_number(value)
                except InvalidReading as error:
                    decoded.notes.append(f"{key}: {error}")
        decoded.add(values, moment, is_dated=moment is not None)
        return decoded

    def write(self, measured, received_at):
        HeatValue.objects.bulk_create(
            HeatValue(device_id=one.device, timestamp=one.timestamp, key=key, value=value)
            for one in measured
            for key, value in one.values.items()
        )

    def latest(self, devices, names):
        same = HeatValue.objects.filter(device=OuterRef("device"), key=OuterRef("key"))
        newest = Subquery(same.order_by("-timestamp", "-pk").values("pk")[:1])
        rows = HeatValue.objects.filter(device__in=devices, key__in=names, pk=newest)
        return {(row.device_id, row.key): Latest(row.value, row.timestamp) for row in rows}


registry.register(
    Kind(
        "heatmeter",
        device_model=HeatMeter,
        message_model=HeatMessage,
        store=HeatStore(),
        commands={"read_out": Command(payload={"register": int})},
        keep={"keep_readings": "90d"},
        pages=Pages(
            admin={HeatMeter: "tests.devicehub.kinds.heat.pages.HeatMeterAdmin"},
            columns={"energy": Reading(unit="kWh"), "flow": Reading(unit="l/h", verbose_name="Flow")},
        ),
    )
)
