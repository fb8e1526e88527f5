"""The suite in lanes: its parts leave no test out, and a failure in one of them is a failure of the whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from rig import lanes, processes, servers
from rig.hub import ROOT
from rig.lanes import LANES, LONG, QUICK, Part, Run
from rig.processes import SHORT

pytestmark = pytest.mark.sqlite_only


def selected(marks: str, carried: set[str]) -> bool:
    """Return whether pytest's expression *marks* selects a test that carries these marks."""
    return bool(
        eval(
            marks,
            {},
            {
                name: name in carried
                for name in ("servers", "long", "pages", "sqlite_only", "sqlite_first", "fuzzed")
            },
        )
    )


@pytest.mark.parametrize(
    "carried",
    [
        set(),
        {"servers"},
        {"long"},
        {"long", "servers"},
        {"pages"},
        {"pages", "servers"},
        {"pages", "long"},
        {"sqlite_first"},
        {"sqlite_first", "servers"},
        {"sqlite_first", "long"},
    ],
)
@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"])
def test_every_test_is_in_exactly_one_part_of_a_database(carried, database):
    parts = [part for lane in (*LANES, LONG) for part in lane if part.database == database]
    parts = [part for part in parts if part.examples == 1]  # The others run tests of a part again.

    assert sum(selected(part.marks, carried) for part in parts) == 1


def test_what_concerns_sqlite_alone_does_not_run_on_postgresql():
    parts = [part for lane in (*LANES, LONG) for part in lane if part.database == "PostgreSQL"]

    for marks in ({"sqlite_only"}, {"sqlite_only", "servers"}, {"sqlite_only", "long"}):
        assert not any(selected(part.marks, marks) for part in parts)


def test_marks_among_the_arguments_narrow_a_part():
    command = lanes.command(QUICK, ["-m", "postgresql_only", "tests/authsvc", "-x"], seed=7)

    at = command.index("-m", 3)
    assert command[at + 1] == "not servers and not long and not pages and (postgresql_only)"
    assert command[-2:] == ["tests/authsvc", "-x"]
    assert "--randomly-seed=7" in command


@pytest.mark.parametrize("given", [["-xm", "slow"], ["-qvmslow"], ["-m", "slow", "-x"], ["-m=slow"]])
def test_marks_behind_other_flags_do_not_replace_those_of_the_part(given):
    command = lanes.command(QUICK, given, seed=7)

    at = command.index("-m", 3)
    assert command[at + 1] == "not servers and not long and not pages and (slow)"
    assert not any("m" in argument for argument in command[at + 2 :])


def test_the_table_says_how_long_each_part_took():
    runs = [Run(QUICK, 0, "10 passed in 61.02s", 61.4), Run(LANES[0][1], 1, "1 failed in 5.00s", 5.2)]

    assert lanes.report(runs, 70).splitlines() == [
        "quick       SQLite      61 s  10 passed in 61.02s",
        "postgresql  PostgreSQL   5 s  1 failed in 5.00s",
        "whole                   70 s",
    ]


@pytest.mark.parametrize(
    ("statuses", "arguments", "expected"),
    [
        ([0, 0], [], 0),
        ([0, 1], [], 1),
        ([2, 0], ["tests/x.py"], 1),
        ([0, 5], ["tests/x.py"], 0),
        ([5, 5], ["tests/x.py"], 1),
        ([0, 5], [], 1),
    ],
)
def test_a_part_that_fails_or_is_empty_fails_the_whole(monkeypatch, capsys, statuses, arguments, expected):
    """A selection may leave a part empty; the whole suite may not."""
    left = iter(statuses)

    def ends(*_):
        return [sys.executable, "-c", f"print('the last line'); raise SystemExit({next(left)})"]

    monkeypatch.setattr(lanes, "LANES", (tuple(Part(f"part-{i}", "SQLite", "") for i in (1, 2)),))
    monkeypatch.setattr(lanes, "command", ends)

    assert lanes.main(arguments) == expected
    assert "part-2: the last line" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "message"),
    [(4, "pytest does not accept these arguments"), (5, "no test matches these arguments")],
)
def test_the_last_line_names_a_mistake_in_the_arguments(monkeypatch, capsys, status, message):
    monkeypatch.setattr(lanes, "LANES", ((Part("part", "SQLite", ""),),))
    monkeypatch.setattr(lanes, "command", lambda *_: [sys.executable, "-c", f"raise SystemExit({status})"])

    assert lanes.main(["--nonsense"]) == 1
    assert message in capsys.readouterr().out.splitlines()[-1]


def test_the_last_line_names_a_test_whose_peer_is_missing(monkeypatch, capsys):
    """Java is not among the servers that REQUIRE_REAL demands."""
    text = "print('did not run: tests/a.py::test_b (no real Leshan: no Java)'); print('1 passed, 1 skipped')"
    monkeypatch.setattr(lanes, "LANES", ((QUICK,), (QUICK,)))
    monkeypatch.setattr(lanes, "command", lambda *_: [sys.executable, "-c", text])

    assert lanes.main([]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "script/test: did not run: tests/a.py::test_b (no real Leshan: no Java)"
    assert lines[-2].startswith("whole")


@pytest.mark.servers
def test_a_test_whose_peer_is_missing_is_named_also_where_real_servers_are_demanded():
    test = "tests/devicehub/lwm2m/leshan/test_real_leshan.py::test_the_demo_server_m4_is_followed"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", test],
        cwd=ROOT,
        env={**os.environ, "PATH": "/nowhere", "REQUIRE_REAL": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert ran.returncode == 0
    reason = "no real Leshan: java is not installed (apt-get install default-jdk-headless)"
    assert f"\ndid not run: {test} ({reason})\n" in ran.stdout


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lane_that_breaks_off_fails_the_whole(monkeypatch):
    """Its parts have no result, and so no wrong exit status."""

    def broken(part, *_):
        if part.name == "broken":
            raise OSError("no more processes")
        return [sys.executable, "-c", "print('1 passed')"]

    monkeypatch.setattr(lanes, "LANES", ((Part("good", "SQLite", ""),), (Part("broken", "SQLite", ""),)))
    monkeypatch.setattr(lanes, "command", broken)

    assert lanes.main([]) == 1


def test_output_that_the_terminal_cannot_encode_breaks_nothing_off():
    suite = """
import sys
from rig import lanes
text = "21 " + chr(0x2103)
lanes.command = lambda *_: [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({text.encode()})"]
lanes.LANES = ((lanes.QUICK,),)
lanes.program()
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", suite],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "quick: 21 \\u2103" in done.stdout


def test_a_test_without_the_mark_cannot_start_a_server(tmp_path):
    """This test has none."""
    with (
        pytest.raises(AssertionError, match="starts sleep and needs the mark `servers`"),
        servers.process(["sleep", "9"], env={}, log=tmp_path / "log", ready=lambda: True),
    ):
        pass


@pytest.mark.parametrize("seconds", [SHORT - 0.3, SHORT + 0.1])
def test_a_test_without_the_mark_fails_if_its_processes_took_long(request, monkeypatch, seconds):
    """This is the hook around each test, with processes that have taken so long since the test began."""
    spent = iter([0.0, seconds])
    conftest = request.config.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    with monkeypatch.context() as patch:
        patch.setattr(processes, "of_ended", lambda: next(spent))
        conftest.pytest_runtest_setup(request.node)
        around = conftest.pytest_runtest_call(request.node)
        next(around)

        with pytest.raises(StopIteration if seconds < SHORT else pytest.fail.Exception):
            around.send(None)

    conftest.pytest_runtest_setup(request.node)


SLOW = """
import os, time
print(os.environ["DATABASE_URL"].rpartition(":")[2].partition("/")[0], flush=True)
time.sleep(60)
"""
SUITE = """
import sys
from rig import lanes
slow = [sys.executable, "-m", "rig.on_postgresql", sys.executable, "-c", sys.argv.pop()]
lanes.command = lambda *_: slow
lanes.LANES = ((lanes.QUICK,),)
lanes.program()
"""


@pytest.mark.servers
@pytest.mark.parametrize(
    ("number", "interrupt"),
    [
        (signal.SIGINT, signal.SIG_DFL),
        pytest.param(signal.SIGTERM, signal.SIG_DFL, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, signal.SIG_DFL, marks=pytest.mark.long),
        # A process that a shell starts in the background ignores the signal, and so do its children.
        (signal.SIGTERM, signal.SIG_IGN),
    ],
)
def test_a_suite_that_is_interrupted_stops_its_servers(needs_real, number, interrupt):
    try:
        servers.postgres()
    except servers.MissingServer as missing:
        needs_real(missing)

    def set_signals():
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it.

    with subprocess.Popen(
        [sys.executable, "-c", SUITE, SLOW],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=set_signals,
    ) as suite:
        assert suite.stdout is not None
        assert suite.stdout.readline().startswith("script/test: seed ")
        port = int(suite.stdout.readline().removeprefix("quick: "))
        assert servers.accepts(port)
        began = time.monotonic()

        suite.send_signal(number)

        assert suite.wait(30) == 128 + number
        assert time.monotonic() - began < lanes.STOP_SECONDS, "killed instead of interrupted"
        assert not servers.accepts(port)
