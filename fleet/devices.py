"""The project's own device types. Edit these first; see docs/how-to/declare-a-device-type.md."""

from devicehub import Command, DeviceType, Reading, StateField, reading_types


class WeatherStation(DeviceType):
    temperature = Reading(type=reading_types.FLOAT, unit="Cel", range=(-40, 80))
    humidity = Reading(type=reading_types.FLOAT, unit="%RH", range=(0, 100))
    rainfall = Reading(type=reading_types.FLOAT, unit="mm")

    reboot = Command(description="Start again")
    set_interval = Command(payload={"interval": int}, description="Seconds between two readings")


class IrrigationValve(DeviceType):
    flow = Reading(type=reading_types.FLOAT, unit="l/s", range=(0, 20))
    pressure = Reading(type=reading_types.FLOAT, unit="Pa", range=(0, 1_000_000))
    cycles = Reading(type=reading_types.INTEGER, unit="count", range=(0, None))

    mode = StateField(
        type="string", default="automatic", choices=["automatic", "manual", "closed"], verbose_name="Mode"
    )
    opening = StateField(type="integer", default=0, choices=[0, 25, 50, 75, 100], verbose_name="Opening (%)")
    serviced_at = StateField(type="datetime", verbose_name="Last service")

    open = Command(payload={"opening": int, "seconds": int}, description="Open for a while")
    close = Command(description="Close now")

    class Meta:
        heartbeat_interval = 900
