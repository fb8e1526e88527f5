"""Each action on an identity or a right leaves an entry in the audit: a new one without an entry fails here."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only

# The modules with the actions on devices, accounts, grants, brokers, commands and the quarantine.
ACTIONS = (
    *("authsvc/granting.py", "authsvc/broker_tokens.py", "devicehub/rights.py"),
    *("devicehub/provisioning/*.py", "devicehub/bulk/*.py"),
    *("devicehub/commands/queue.py", "devicehub/ingest/replay.py", "devicehub/ingest/dismissal.py"),
    "devicehub/lwm2m/definitions.py",
    *("devicehub/removal/erase.py", "devicehub/removal/inheritance.py", "devicehub/removal/requests.py"),
)
# Methods that write rows; issue_token() and the others of credentials change columns that are saved next.
WRITES = frozenset(
    {
        *("save", "delete", "update", "create", "get_or_create", "update_or_create"),
        *("bulk_create", "bulk_update", "set_hash", "end_tokens", "issue_token", "generate_credentials"),
    }
)
RECORDS = frozenset({"record", "record_many"})
# Functions that write and record nothing, each with its reason.
SILENT = {
    "devicehub/bulk/imports.py:delete_old": "uploads that were not used",
    "devicehub/bulk/rotations.py:claim": "the times of a run, not a change of rights",
    "devicehub/bulk/rotations.py:go_on": "the time of a batch, which records its changes itself",
    "devicehub/provisioning/rows.py:save": "the action that changes the row records it",
    "devicehub/provisioning/groups.py:follow": "members by filter follow from a recorded change of a device",
    "devicehub/provisioning/groups.py:follow_all": "members by filter follow from changes of devices",
    "devicehub/lwm2m/definitions.py:import_files": "definitions are neither identities nor rights; each names its file",
    "devicehub/lwm2m/definitions.py:install": "definitions that are shipped, which each migrate compares",
    "devicehub/commands/queue.py:delete_open": "the deletion of the device is recorded",
}


class Function:
    """A function, the names that it calls, and whether it writes or records by itself."""

    def __init__(self, path: str, node: ast.FunctionDef, known: Collection[str] = ()) -> None:
        calls = [call.func for call in ast.walk(node) if isinstance(call, ast.Call)]
        attributes = {call.attr for call in calls if isinstance(call, ast.Attribute)}
        self.name, self.path = node.name, path
        # Also a function that is handed on to another, which calls it.
        names = {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}
        # The method of a file in a `with` of this function is none of ours, whatever its name.
        files = {
            item.optional_vars.id
            for block in ast.walk(node)
            if isinstance(block, ast.With)
            for item in block.items
            if isinstance(item.optional_vars, ast.Name)
        }
        ours = {
            call.attr
            for call in calls
            if isinstance(call, ast.Attribute)
            if not (isinstance(call.value, ast.Name) and call.value.id in files)
        }
        self.calls = ours | names & set(known)
        self.writes, self.records = bool(WRITES & attributes), bool(RECORDS & attributes)

    @property
    def place(self) -> str:
        return f"{self.path}:{self.name}"


@cache
def functions() -> dict[str, list[Function]]:
    """Return the functions of the modules by name; several modules may use one name."""
    found: dict[str, list[Function]] = {}
    for path in (path for pattern in ACTIONS for path in sorted(ROOT.glob(pattern))):
        for function in _top_level(path):
            found.setdefault(function.name, []).append(function)
    return found


def _top_level(path: Path) -> Iterator[Function]:
    """Yield the functions of the module at *path*, which know each other and the names that it imports."""
    body = ast.parse(path.read_text()).body
    known = {
        alias.asname or alias.name
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    known |= {node.name for node in body if isinstance(node, ast.FunctionDef)}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield Function(str(path.relative_to(ROOT)), node, known)


def reached(function: Function) -> list[Function]:
    """Return *function* and the functions that it calls, directly or not; those of its own module come first."""
    found, waiting = {function.place: function}, [function]
    while waiting:
        current = waiting.pop()
        for name in current.calls:
            named = functions().get(name, [])
            own = [other for other in named if other.path == current.path] or named
            new = {other.place: other for other in own if other.place not in found}
            found |= new
            waiting += new.values()
    return list(found.values())


def silent() -> set[str]:
    """Return the places of public functions that write without an entry."""
    return {
        function.place
        for named in functions().values()
        for function in named
        if not function.name.startswith("_")
        and any(each.writes for each in reached(function))
        and not any(each.records for each in reached(function))
    }


def test_every_action_that_writes_records():
    assert silent() == SILENT.keys()


def test_a_new_action_without_an_entry_would_be_found(monkeypatch):
    module = ast.parse("def swap(device):\n    _swap(device)\n\ndef _swap(device):\n    device.save()\n")
    names = ("swap", "_swap")
    new = [Function("devicehub/provisioning/swapping.py", node, names) for node in module.body]
    monkeypatch.setitem(functions(), "swap", [new[0]])
    monkeypatch.setitem(functions(), "_swap", [new[1]])

    assert "devicehub/provisioning/swapping.py:swap" in silent()


def test_credentials_are_changed_by_actions_alone():
    """The functions that set a hash or a token are called in these modules and nowhere else."""
    setters = ("set_hash", "end_tokens", "issue_token", "generate_credentials", "generate_password")
    texts = {
        path: text
        for app in ("authsvc", "devicehub", "fleet", "config")
        for path in (ROOT / app).rglob("*.py")
        if any(name in (text := path.read_text()) for name in setters)
    }
    callers = {
        str(path.relative_to(ROOT))
        for path, text in texts.items()
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in setters
    }
    listed = {str(path.relative_to(ROOT)) for pattern in ACTIONS for path in ROOT.glob(pattern)}

    assert callers - listed == {
        "authsvc/credentials.py",  # the definitions
        "authsvc/models.py",
        "devicehub/models/devices.py",
        "devicehub/simulation/logins.py",  # records itself
    }
