"""The models of the device types in `devices.py`; each line makes three tables."""

from fleet.devices import IrrigationValve, WeatherStation

WeatherStationDevice, WeatherStationReading, WeatherStationMessage = WeatherStation.create_models()
IrrigationValveDevice, IrrigationValveReading, IrrigationValveMessage = IrrigationValve.create_models()
