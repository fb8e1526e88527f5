"""Rooms: the maps in architecture.md and CONTRIBUTING.md match the tree, and tests stand beside the code."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only

APPS = ("authsvc", "devicehub")
PARTS = (*APPS, "fleet", "config", "tests", "rig", "bench", "script", "docs", "mosquitto", "requirements")
LONGEST = 700
MAP = "docs/explanation/architecture.md"
# Rooms of the code whose tests stand elsewhere, because they reach it through something else.
TESTED_ELSEWHERE = {
    "authsvc/management": "commands are documented in test_docs and run in the rooms of what they call",
    "authsvc/migrations": "tests/project/test_earlier_project.py migrates",
    "devicehub/formats": "tests/devicehub/admin shows times with them",
    "devicehub/migrations": "tests/project/test_earlier_project.py migrates",
    "devicehub/static": "files of the pages, tested in the browser with the dashboard",
    "devicehub/templates": "tested with the pages of the dashboard",
    "devicehub/templatetags": "tests/devicehub/dashboard/test_navigation.py",
}


def rooms(app: str) -> set[str]:
    """Return the folders of *app*, as paths from the root."""
    return {
        f"{app}/{found.name}"
        for found in (ROOT / app).iterdir()
        if found.is_dir() and found.name not in ("__pycache__", "locale")
    }


def section(page: str, heading: str) -> str:
    """Return the text below *heading* of *page*."""
    text = (ROOT / page).read_text()
    found = re.search(rf"^## {heading}$\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in *text*, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    rules = [number for number, cells in enumerate(found) if set("".join(cells)) <= set("-|: ")]
    return [cells for number, cells in enumerate(found) if number not in rules and number + 1 not in rules]


def paths(text: str) -> set[str]:
    """Return the paths of this repository in *text*; `<...>` and `*` stand for any name."""
    code = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return {
        word
        for word in code
        if re.fullmatch(r"[\w.<>*/-]+", word) and word.partition("/")[0] in PARTS and "/" in word
    }


def exists(path: str) -> bool:
    """Return whether a file or folder matches *path*."""
    return any(ROOT.glob(re.sub(r"<[^>]+>", "*", path).rstrip("/")))


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of the module at *path*."""
    return ast.parse(path.read_text())


@cache
def words(path: Path) -> frozenset[str]:
    """Return the words of the module at *path*."""
    return frozenset(re.findall(r"\w+", path.read_text()))


# The maps


@pytest.mark.parametrize("app", APPS)
def test_every_room_has_a_line_on_the_map_and_every_line_a_room(app):
    files = {f"{app}/{file.name}" for file in (ROOT / app).glob("*.py") if file.name != "__init__.py"}
    wanted = files | {f"{room}/" for room in rooms(app)}
    listed = [
        path
        for cells in rows(section(MAP, f"Rooms of {app}"))
        for path in re.findall(rf"`({app}/[^`]+)`", cells[0])
    ]

    assert sorted(listed) == sorted(wanted)


@pytest.mark.parametrize("app", APPS)
def test_the_map_goes_from_the_top_to_the_bottom(app):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == [app])
    floors = {room: number for number, layer in enumerate(layers) for room in layer.split(" | ")}
    listed = [
        room
        for cells in rows(section(MAP, f"Rooms of {app}"))
        for room in re.findall(rf"`{app}/(\w+)", cells[0])
        if room in floors
    ]

    assert sorted(listed) == sorted(floors)
    assert [floors[room] for room in listed] == sorted(floors[room] for room in listed)


@pytest.mark.parametrize("app", APPS)
def test_every_line_of_the_map_says_what_its_room_holds(app):
    for cells in rows(section(MAP, f"Rooms of {app}")):
        assert len(cells) == 2, cells
        assert len(cells[1].split()) > 2, cells


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", MAP])
def test_a_page_names_only_paths_that_exist(page):
    assert {path for path in paths((ROOT / page).read_text()) if not exists(path)} == set()


def test_each_thing_to_add_has_its_file_its_list_and_its_test():
    table = rows(section("CONTRIBUTING.md", "Where things belong"))

    assert len(table) > 10
    for cells in table:
        assert len(cells) == 4, cells
        assert all(cells), cells
        assert paths(cells[1]), f"no file for {cells[0]}"
        assert paths(cells[3]), f"no test for {cells[0]}"


def test_each_list_that_the_map_names_is_there():
    """A function, a class or a list in the third column stands in one of the files of its row."""
    for cells in rows(section("CONTRIBUTING.md", "Where things belong")):
        files = [
            file
            for path in paths(" ".join(cells[1:3]))
            for file in ROOT.glob(re.sub(r"<[^>]+>", "*", path).rstrip("/"))
            if file.is_file()
        ]
        text = "\n".join(file.read_text() for file in files)
        for name in re.findall(r"`(?:\w+\.)?(\w+\(|[A-Z]\w+)", cells[2]):
            assert name in text, f"{name} stands in no file that the row of {cells[0]!r} names"


# The tests


def test_no_file_of_tests_is_too_long():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "tests").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > LONGEST
    }

    assert long == {}


@pytest.mark.parametrize("app", APPS)
def test_tests_stand_in_the_rooms_of_the_code(app):
    tested = {room.removeprefix("tests/") for room in rooms(f"tests/{app}")}

    assert tested | (rooms(app) & TESTED_ELSEWHERE.keys()) == rooms(app)
    assert not tested & TESTED_ELSEWHERE.keys()


def test_no_module_of_tests_imports_another():
    """Shared code stands in rig/, and shared fixtures in a conftest.py."""
    found = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in (ROOT / "tests").rglob("*.py")
        if re.search(r"\b(?:import|from)\s+tests\b", path.read_text())
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in [getattr(node, "module", None) or node.names[0].name]
        if module.startswith("tests.")
    ]

    assert found == []


def test_every_dotted_name_in_quotes_leads_somewhere():
    """No checker sees the names in settings, patches and commands, because they are not imports."""
    ours = re.compile(rf"(?:{'|'.join(APPS)}|fleet|config)(?:\.\w+){{2,}}|(?:rig|bench|tests)(?:\.\w+)+")
    quoted = re.compile(rf"[\"'](?:{ours.pattern})[\"']")
    lost = [
        f"{path.relative_to(ROOT)}: {node.value}"
        for package in (*APPS, "fleet", "config", "rig", "bench", "tests")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "test_contracts.py"  # it names modules that are in the wrong place
        if quoted.search(path.read_text())  # to parse all modules takes seconds
        for parent in ast.walk(tree(path))
        for node in ast.iter_child_nodes(parent)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ours.fullmatch(node.value)
        if not (isinstance(parent, ast.keyword) and parent.arg == "dispatch_uid")  # a name of its own
        if not leads_somewhere(node.value)
    ]

    assert lost == []


def leads_somewhere(name: str) -> bool:
    """Return whether *name* is a module here, or a word in the module that its longest prefix names."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        folder = ROOT.joinpath(*parts[:length])
        for file in (folder.with_suffix(".py"), folder / "__init__.py"):
            if file.exists():
                return length == len(parts) or parts[length] in words(file)
    return False


def test_rig_holds_no_tests():
    found = [
        f"{path.name}: {node.name}"
        for path in (ROOT / "rig").rglob("*.py")
        if re.search(r"\b(?:def test_|class Test)", path.read_text())
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if node.name.startswith(("test_", "Test"))
    ]

    assert found == []


def test_every_module_of_tests_and_of_rig_says_its_subject():
    modules = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "rig").rglob("*.py")]
    silent = [
        str(path.relative_to(ROOT))
        for path in modules
        if (text := path.read_text()) and not text.startswith('"""') and not ast.get_docstring(tree(path))
    ]

    assert silent == []
