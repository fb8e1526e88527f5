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


def broken(tree: Path) -> dict[str, str]:
    """Return the report on each contract that the code in *tree* breaks, by its name."""
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
    *_, reports = done.stdout.partition("\nBroken contracts\n")
    _, *parts = re.split(r"^(.+)\n-+\n\n", reports, flags=re.MULTILINE)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    assert found.keys() == names
    return found


@pytest.mark.servers
def test_the_code_keeps_its_contracts(tree):
    assert broken(tree) == {}


def test_every_package_is_in_the_contracts():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    packages = {found.parent.name for found in ROOT.glob("*/__init__.py")}

    assert packages == set(settings["root_packages"])
    assert packages == set(settings["contracts"][0]["layers"])


# Wrong modules of different contracts are checked together, because each run reads the whole code.
WRONG = {
    "a room without a floor": [(OF_DEVICEHUB, "devicehub.loose", "")],
    "upwards, and impure": [
        (OF_DEVICEHUB, "devicehub.kinds.upward", "from devicehub.worker import loop"),
        (OF_AUTHSVC, "authsvc.freshness.upward", "from authsvc import gateway"),
        (FLOORS, "authsvc.operation.upward", "from devicehub import models"),
        (PURE, "authsvc.core.impure", "import asyncio"),
        (DIALECTS, "authsvc.dialects.vernemq", "from authsvc.dialects import emqx"),
        (PAHO, "devicehub.db.wired", "import paho.mqtt.client"),
    ],
    "sideways, and in a new dialect": [
        (OF_DEVICEHUB, "devicehub.dashboard.sideways", "from devicehub.admin import devices"),
        (OF_AUTHSVC, "authsvc.loose", ""),
        (FLOORS, "devicehub.simulation.upward", "import rig"),
        (PURE, "devicehub.messages.impure", "import django"),
        (DIALECTS, "authsvc.dialects.hivemq", "from authsvc.dialects import emqx"),
    ],
}


@pytest.mark.servers
@pytest.mark.parametrize("modules", WRONG.values(), ids=WRONG)
def test_a_module_in_the_wrong_place_breaks_its_contract(tree, modules):
    before = {}
    try:
        for _, module, line in modules:
            file = tree / f"{module.replace('.', '/')}.py"
            before[file] = file.read_text() if file.exists() else None
            file.write_text(f"{before[file] or ''}\n{line}\n")
        reports = broken(tree)
    finally:
        for file, text in before.items():
            file.unlink() if text is None else file.write_text(text)

    assert reports.keys() == {contract for contract, _, _ in modules}
    for contract, module, _ in modules:
        assert [name for _, name, _ in modules if name in reports[contract]] == [module]
