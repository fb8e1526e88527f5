"""The import contracts of pyproject.toml can fail: a module in the wrong place breaks each of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only

COPIED = ("authsvc", "devicehub", "fleet", "config")
EMPTY = ("rig", "bench", "tests")  # floors above the copied ones, which must not import them
FLOORS = "config -> fleet -> devicehub -> authsvc"
OF_DEVICEHUB = "devicehub: each room on its floor"
OF_AUTHSVC = "authsvc: each room on its floor"
PURE = "decisions, dialects and decoders are pure"
DIALECTS = "dialects know only core (jwt answers as go_auth does)"
PAHO = "only devicehub.mqtt imports paho"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Return a copy of the code with its contracts."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", tree)
    for package in COPIED:
        shutil.copytree(
            ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "static")
        )
    for package in EMPTY:
        (tree / package).mkdir()
        (tree / package / "__init__.py").touch()
    return tree


def broken(tree: Path) -> tuple[set[str], str]:
    """Return the names of the contracts that the code in *tree* breaks, and the whole report."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Analyzed" in done.stdout, done.stdout + done.stderr
    names = set(re.findall(r"^(.+) BROKEN", done.stdout, re.MULTILINE))
    assert bool(done.returncode) == bool(names)
    return names, done.stdout


def test_the_code_keeps_its_contracts(tree):
    assert broken(tree)[0] == set()


def test_every_package_is_in_the_contracts():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    packages = {found.parent.name for found in ROOT.glob("*/__init__.py")}

    assert packages == set(settings["root_packages"])
    assert packages == set(settings["contracts"][0]["layers"])


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        (OF_DEVICEHUB, "devicehub.loose", ""),
        (OF_AUTHSVC, "authsvc.loose", ""),
        (OF_DEVICEHUB, "devicehub.kinds.upward", "from devicehub.worker import loop"),
        (OF_DEVICEHUB, "devicehub.dashboard.sideways", "from devicehub.admin import devices"),
        (OF_AUTHSVC, "authsvc.freshness.upward", "from authsvc import gateway"),
        (FLOORS, "authsvc.operation.upward", "from devicehub import models"),
        (FLOORS, "devicehub.simulation.upward", "import rig"),
        (PURE, "authsvc.core.impure", "import asyncio"),
        (PURE, "devicehub.messages.impure", "import django"),
        (DIALECTS, "authsvc.dialects.vernemq", "from authsvc.dialects import emqx"),
        (DIALECTS, "authsvc.dialects.hivemq", "from authsvc.dialects import emqx"),
        (PAHO, "devicehub.db.wired", "import paho.mqtt.client"),
    ],
    ids=lambda value: value.partition(":")[0],
)
def test_a_module_in_the_wrong_place_breaks_its_contract(tree, contract, module, line):
    file = tree / f"{module.replace('.', '/')}.py"
    before = file.read_text() if file.exists() else None
    file.write_text(f"{before or ''}\n{line}\n")
    try:
        names, report = broken(tree)
    finally:
        file.unlink() if before is None else file.write_text(before)

    assert names == {contract}
    assert module in report
