"""Simulated endpoints: they register over MQTT, and send temperature, humidity and battery as SenML.

An endpoint whose id ends with an even digit uses queue mode: it sleeps, and sends the samples of some turns at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import orjson

from devicehub.kinds.declare import Reading
from devicehub.simulation.device import STATUS_EVERY, SimulatedDevice
from devicehub.simulation.faults import Plan
from devicehub.simulation.series import value_at

LIFETIME = int(5 * STATUS_EVERY)
LINKS = '</>;rt="oma.lwm2m";ct="110",</3>;ver="1.1",</3/0>,</3303>;ver="1.1",</3303/0>,</3304>;ver="1.1",</3304/0>'
ASLEEP = 6  # Turns of an endpoint in queue mode between two messages.
SENSORS: Mapping[str, Reading] = {
    "3303/0/5700": Reading(type="float", unit="Cel", range=(-40, 80)),
    "3304/0/5700": Reading(type="float", unit="%RH", range=(0, 100)),
}
LOWEST, HIGHEST = "5601", "5602"
BATTERY = "3/0/9"
TIME = "timestamp"
for _path, _reading in SENSORS.items():
    _reading.name = _path


class SimulatedEndpoint(SimulatedDevice):
    """An LwM2M endpoint that speaks over MQTT."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._uses_queue_mode = self.device_id[-1:] in set("02468")
        self._while_asleep: list[dict[str, Any]] = []
        self._extremes: dict[str, float] = {}

    def leave(self) -> None:
        """Send the samples that were kept, and end the registration."""
        if self._while_asleep:
            self._wake()
        super().leave()

    def _greet(self) -> None:
        """Register, and send the facts about the device and the samples from before the first connection, once."""
        self._report_status("online")
        if not self._greeted:
            self._send(self._data, self._pack([(self._facts(), time.time())]))
        super()._greet()

    def _status(self, status: str, *, is_first: bool) -> dict[str, Any]:
        if status == "offline":
            return {"deregistration": True}
        if not is_first:
            return {"update": {"lifetime": LIFETIME}}
        binding = "UQ" if self._uses_queue_mode else "U"
        return {"registration": {"lifetime": LIFETIME, "version": "1.1", "binding": binding, "links": LINKS}}

    def _speak(self, plan: Plan) -> bytes | None:
        if not self._uses_queue_mode:
            return super()._speak(plan)
        self._while_asleep.append(self._sample(time.time()))
        if len(self._while_asleep) < ASLEEP:
            return None
        return self._wake()

    def _wake(self) -> bytes:
        """Send all samples since the last time, and say that it sleeps again."""
        samples, self._while_asleep = self._while_asleep, []
        payload = self._send_samples(samples)
        self._send_status({"awake": False})
        return payload

    def _facts(self) -> dict[str, Any]:
        return {
            "3/0/0": "DeviceHub",
            "3/0/1": "Simulated endpoint",
            "3/0/2": self.device_id,
            "3/0/3": "1.2.0",
            "3/0/6/0": 1,
            "3/0/6/1": 5,
            "3/0/7/0": 3700,
            "3/0/7/1": 5000,
            "3/0/11/0": 0,
            "3/0/13": int(time.time()),
            "3/0/16": "UQ" if self._uses_queue_mode else "U",
            **{f"{path.rpartition('/')[0]}/5701": reading.unit for path, reading in SENSORS.items()},
        }

    def _sample(self, moment: float) -> dict[str, Any]:
        sample: dict[str, Any] = {BATTERY: int(self._battery()), TIME: moment}
        for path, reading in SENSORS.items():
            value = value_at(reading, self.device_id, moment)
            instance = path.rpartition("/")[0]
            low, high = f"{instance}/{LOWEST}", f"{instance}/{HIGHEST}"
            self._extremes[low] = min(value, self._extremes.get(low, value))
            self._extremes[high] = max(value, self._extremes.get(high, value))
            sample[path] = value
        return sample | self._extremes

    def _encode(self, samples: dict[str, Any] | list[dict[str, Any]]) -> bytes:
        some = samples if isinstance(samples, list) else [samples]
        return self._pack(
            [({path: sample[path] for path in sample if path != TIME}, sample[TIME]) for sample in some]
        )

    def _pack(self, samples: list[tuple[dict[str, Any], float]]) -> bytes:
        """Return *samples*, each with its time, as a SenML pack (RFC 8428)."""
        records = [
            {"n": f"/{path}", "t": round(moment, 3), "vs" if isinstance(value, str) else "v": value}
            for values, moment in samples
            for path, value in values.items()
        ]
        return orjson.dumps(records)
