"""Only kinds and the generator use the parts of a DeviceType: all other code reads its Kind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from devicehub import DeviceType

ROOT = Path(__file__).resolve().parents[3]
PRIVATE = {name for name in vars(DeviceType) if name.startswith("_") and not name.startswith("__")}
INSIDERS = ("devicehub/kinds/", "devicehub/models/generate.py", "tests/")
ROOMS = ("authsvc", "bench", "config", "devicehub", "fleet", "rig")


def uses(source: str) -> Iterator[str]:
    """Yield the lines and private names of a DeviceType that *source* reads, by attribute or by getattr()."""
    if not any(name in source for name in PRIVATE):
        return  # Parsing takes ten times as long as the search.
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield f"{node.lineno}: {node.attr}"
        elif isinstance(node, ast.Constant) and node.value in PRIVATE:
            yield f"{node.lineno}: {node.value}"


def test_the_private_names_exist():
    assert {"_readings", "_commands", "_state_fields"} <= PRIVATE


def test_nothing_else_touches_a_private_name_of_a_device_type():
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    outside = [file for file in files if not str(file.relative_to(ROOT)).startswith(INSIDERS)]
    found = {str(file.relative_to(ROOT)): list(uses(file.read_text())) for file in outside}

    assert len(outside) > 100
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "kind.device_type._readings",
        "WeatherStation._commands['reboot']",
        "getattr(declared, '_state_fields')",
        "WeatherStation()._own",
    ],
)
def test_a_private_use_is_found(source):
    assert len(list(uses(source))) == 1


@pytest.mark.parametrize("source", ["self._readings", "station.readings", "'readings'", "_readings"])
def test_other_names_are_left_alone(source):
    assert list(uses(source)) == []
