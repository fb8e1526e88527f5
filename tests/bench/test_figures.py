"""The page of figures: each bench writes its own section, with its machine, reference and targets."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import changes, faults, figures
from bench.__main__ import arguments, main, make_parser

pytestmark = pytest.mark.sqlite_only

ROOT = Path(__file__).resolve().parents[2]
PAGE = (
    "# Figures\r\n\r\nWritten by hand: µs.\n\n"
    "<!-- auth: written by script/bench -->\nold answers\n<!-- end of auth -->\n"
    "\nBetween them.\n"
    "<!-- storm: written by script/bench -->\n## A storm\n<!-- end of storm -->\n\n\nAt the end, without a line break"
).encode()
MODULES = {
    name: module
    for name, one in make_parser()[1].items()
    if (module := one.get_default("module")) is not None
}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Return a page with text by hand and the sections *auth* and *storm*."""
    file = tmp_path / "figures.md"
    file.write_bytes(PAGE)
    return file


def test_a_section_is_replaced_and_every_other_byte_stays(page):
    figures.write(page, "auth", "## Answers\n\nnew: 60 µs")

    assert page.read_bytes() == PAGE.replace(b"old answers", "## Answers\n\nnew: 60 µs".encode())


def test_a_section_written_twice_is_there_once(page):
    figures.write(page, "storm", "first")
    figures.write(page, "storm", "second")

    assert page.read_bytes() == PAGE.replace(b"## A storm", b"second")


def test_a_new_section_comes_last(page, tmp_path):
    figures.write(page, "ingest", "new")
    new = b"<!-- ingest: written by script/bench -->\nnew\n<!-- end of ingest -->\n"

    assert page.read_bytes() == PAGE + b"\n\n" + new
    figures.write(tmp_path / "new.md", "ingest", "new")
    assert (tmp_path / "new.md").read_bytes() == new


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        (b"<!-- end of auth -->", b""),
        (b"<!-- auth: written by script/bench -->", b""),
        (b"<!-- end of auth -->", b"<!-- end of auth --><!-- end of auth -->"),
        (b"Between them.", b"<!-- auth: written by script/bench -->"),
    ],
)
def test_a_page_with_a_broken_section_is_refused_before_anything_is_measured(page, capsys, found, instead):
    broken = PAGE.replace(found, instead)
    page.write_bytes(broken)

    with pytest.raises(figures.CannotWrite):
        figures.write(page, "auth", "new")
    assert page.read_bytes() == broken
    assert main(**vars(arguments(["auth", "--figures", str(page)]))) == 2
    assert f"script/bench auth: {page} must hold" in capsys.readouterr().err


def test_a_folder_that_is_missing_is_named_before_anything_is_measured(tmp_path, capsys):
    file = tmp_path / "missing" / "figures.md"

    assert main(**vars(arguments(["auth", "--figures", str(file)]))) == 2
    assert capsys.readouterr().err == (
        f"script/bench auth: {file.parent} is not a folder: name a file in an existing one (--figures)\n"
    )


@pytest.mark.parametrize("name", ["a --> b", "two\nlines"])
def test_a_name_that_ends_the_comment_is_refused_before_anything_is_measured(page, capsys, name):
    assert main(**vars(arguments(["auth", "--figures", str(page), "--section", name]))) == 2
    assert "cannot stand in a comment" in capsys.readouterr().err
    assert page.read_bytes() == PAGE


def test_a_device_is_refused_before_it_is_read(capsys):
    """To read /dev/zero never ends."""
    assert main(**vars(arguments(["auth", "--figures", "/dev/zero"]))) == 2
    assert "/dev/zero is not a file" in capsys.readouterr().err


def test_a_list_of_mutants_replaces_no_figures(page, capsys):
    with pytest.raises(SystemExit):
        arguments(["mutants", "--list", "--figures", str(page)])

    assert "--list measures nothing" in capsys.readouterr().err


@pytest.mark.servers
def test_a_page_is_never_half_written(page):
    """Between the first byte and the last the disk becomes full."""
    page.chmod(0o640)
    fills_up = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    fills_up += "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
    fills_up += f"from pathlib import Path; from bench import figures; figures.write(Path({str(page)!r}), 'auth', 'x')"
    done = subprocess.run(
        [sys.executable, "-c", fills_up], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert f"CannotWrite: {page} cannot be written: File too large" in done.stderr
    assert page.read_bytes() == PAGE
    assert list(page.parent.iterdir()) == [page]

    figures.write(page, "auth", "x")
    assert page.stat().st_mode & 0o777 == 0o640


def test_two_benches_that_end_at_once_both_write(page):
    names = [f"bench-{number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: figures.write(page, name, name), names))

    assert all(figures._begin(name).encode() in page.read_bytes() for name in names)


def test_a_symbolic_link_to_the_page_stays_one(page, tmp_path):
    link = tmp_path / "link.md"
    link.symlink_to(page)

    figures.write(link, "auth", "new")

    assert link.is_symlink()
    assert b"new" in page.read_bytes()


def test_a_report_that_cannot_be_written_is_printed(page, monkeypatch, capsys):
    """The run may have taken an hour."""
    report = {"databases": [], "targets": [], "met": True, "measured": 42}

    def run(**_):
        page.unlink()
        page.mkdir()
        return report

    monkeypatch.setattr(changes, "run", run)
    monkeypatch.setattr(changes, "markdown", lambda _: [])

    assert main(**vars(arguments(["changes", "--json", "--figures", str(page)]))) == 2
    printed = capsys.readouterr()
    assert '"measured": 42' in printed.out
    assert f"script/bench changes: {page} cannot be written: " in printed.err


def test_a_missed_target_is_in_bold():
    reached = [
        {"target": "at most 1.7", "worst": 1.52, "met": True},
        {"target": "none lost", "worst": 3, "met": False},
    ]

    assert figures.targets(reached).splitlines() == [
        "| target | worst figure | result |",
        "| --- | --- | --- |",
        "| at most 1.7 | 1.52 | met |",
        "| none lost | 3 | **missed** |",
    ]


def test_a_section_names_its_command_commit_and_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "commit", lambda: "abc1234")
    report = {
        "machine": figures.machine(),
        "databases": ["SQLite 3.40.1", "PostgreSQL 15.14"],
        "server": "gunicorn 27",
        "targets": [],
    }

    text = figures.section("Answers", "script/bench auth --seconds 1", report, ["The reference.", "A table."])

    heading, head, *body = text.split("\n\n")
    assert heading == "## Answers"
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d, commit abc1234: `script/bench auth --seconds 1`\\\n"
        r"\d+ cores \(.+\), load [\d.]+ at the start; \w+ .+; Python 3\.\d+\.\d+; "
        r"SQLite 3\.40\.1; PostgreSQL 15\.14; gunicorn 27\.",
        head,
    )
    assert body[:2] == ["The reference.", "A table."]


def test_the_command_line_is_the_one_that_measures():
    given = ["auth", "--devices", "1000", "--figures", "docs/figures.md", "--json", "--section=auth, all"]

    assert figures.command_line(given) == "script/bench auth --devices 1000"
    assert arguments(given).command == "script/bench auth --devices 1000"


def test_a_commit_is_marked_where_a_file_besides_the_page_was_changed(tmp_path):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert figures.commit(tmp_path) == "unknown"
    git("init", "-q")
    (tmp_path / "docs").mkdir()
    for name in ("docs/figures.md", "code.py"):
        (tmp_path / name).write_text("before")
    git("add", ".")
    git("commit", "-q", "-m", "Add a page")
    (tmp_path / "docs" / "figures.md").write_text("after")

    assert re.fullmatch("[0-9a-f]{7,}", figures.commit(tmp_path))
    (tmp_path / "code.py").write_text("after")
    assert figures.commit(tmp_path).endswith(" with uncommitted changes")


def test_complaints_and_faults_without_figures_are_listed():
    report = {
        "seconds": 8,
        "seed": 7,
        "rows": [{"scenario": "network-cut", "database": "sqlite", "complaints": ["round 1: too\nlate"]}],
        "left_out": ["disk-full on sqlite: not permitted: mount a tmpfs"],
        "broken": ["kill-random on sqlite: python ended with 1"],
    }

    *_, notes = faults.markdown(report)

    assert notes.splitlines() == [
        "- network-cut on sqlite, round 1: too late",
        "- left out: disk-full on sqlite: not permitted: mount a tmpfs",
        "- **broken off**: kill-random on sqlite: python ended with 1",
    ]
    assert len(faults.markdown(report | {"rows": [], "left_out": [], "broken": []})) == 2


def test_a_section_has_a_name_of_its_own_if_one_is_given(page, monkeypatch, capsys):
    """A long run stands beside the usual one."""
    report = {
        "databases": ["SQLite 3"],
        "server": "gunicorn",
        "rows": [{"database": "sqlite", "changes": 5, "p50_ms": 1.5, "p99_ms": 130.0, "max_ms": 2000.0}],
        "targets": [{"target": "within 100 ms", "worst": 130.0, "met": False}],
        "met": False,
    }
    monkeypatch.setattr(changes, "run", lambda **_: report)
    given = ["changes", "--figures", str(page), "--section", "changes, long run"]

    assert main(**vars(arguments(given))) == 1

    text = page.read_text()
    assert (
        "<!-- changes, long run: written by script/bench -->\n## Changes in force: changes, long run\n"
        in text
    )
    assert "| sqlite | 5 | 1.50 | 130 | 2,000 |" in text
    assert "| within 100 ms | 130 | **missed** |" in text
    assert "script/bench changes`" in text


# A useful sample of mutants takes half an hour, so that section is optional.
@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"mutants"}))
def test_every_bench_has_its_section_on_the_page(name):
    text = (ROOT / figures.PAGE).read_text()
    found = re.search(
        rf"^<!-- {name}: written by script/bench -->\n## {MODULES[name].TITLE}\n(.+?)^<!-- end of {name} -->$",
        text,
        re.MULTILINE | re.DOTALL,
    )

    assert found, f"run script/bench {name} --figures {figures.PAGE}"
    assert "`script/bench " in found[1]
    assert "| target | worst figure | result |" in found[1]
