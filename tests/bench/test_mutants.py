"""Mutants of a tiny package: one is killed, one survives and is listed, one is accepted with a reason."""

from __future__ import annotations

import pytest

from bench import mutants
from bench.__main__ import arguments
from bench.mutation import MODULE
from bench.mutation import mutants as mutants_of
from rig.serving import CannotMeasure

pytestmark = pytest.mark.sqlite_only  # needs no database

SOURCE = '''"""A package of one module."""

LIMIT = 10
COLOURS = {"red": 1}


def limited(number: int) -> int:
    """Return *number*, at most LIMIT."""
    if number > LIMIT:
        raise ValueError(f"{number} is more than the limit of {LIMIT}")
    return number
'''
TESTS = """
import pytest

from sample.limits import limited


def test_a_small_number_is_itself():
    assert limited(3) == 3


def test_a_large_number_is_refused():
    with pytest.raises(ValueError):
        limited(12)
"""
GUARD = ("sample/limits.py", "limited", "if number > LIMIT:", "if number >= LIMIT:")
SUITE = mutants.Suite(
    stages=(("tests",),),
    doctests=(),
    without=(),
    options=("-q", "-p", "no:django", "-p", "no:randomly", "-p", "no:cacheprovider"),
)


@pytest.fixture
def sample(tmp_path):
    """Return the root of a project with one module and two tests."""
    for file, text in {"sample/limits.py": SOURCE, "tests/test_limits.py": TESTS}.items():
        path = tmp_path / file
        path.parent.mkdir()
        path.with_name("__init__.py").touch()
        path.write_text(text)
    return tmp_path


def changes(source, function):
    """Return the mutants of *function* as pairs of lines."""
    return {(m.before, m.after) for m in mutants_of("a.py", source) if m.function == function}


@pytest.mark.servers
def test_survivors_are_listed_unless_a_reason_is_given(sample, capsys):
    chosen = [m for m in mutants.found(sample, ["sample"]) if m.function == "limited" or m.text == "11"]
    accepted = mutants.Judgement(*GUARD, reason="for this test")
    obsolete = mutants.Judgement(
        "sample/limits.py", "limited", "return number", "return 0", reason="an old one"
    )

    report = mutants.measure(
        sample,
        paths=["sample"],
        seed=1,
        minutes=1,
        chosen=chosen,
        suite=SUITE,
        accepted=[accepted, obsolete],
    )

    verdicts = {outcome["diff"]: outcome["verdict"] for outcome in report["outcomes"]}
    assert verdicts["- return number\n+ return None"] == "killed"
    assert verdicts["- if number > LIMIT:\n+ if number >= LIMIT:"] == "accepted"
    assert verdicts["- LIMIT = 10\n+ LIMIT = 11"] == "survived"
    assert [entry["reason"] for entry in report["obsolete"]] == ["an old one"]
    assert report["tests"] == 2
    assert not report["met"]

    mutants.show(report)

    shown = capsys.readouterr().out
    assert "sample/limits.py:3 <module>\n- LIMIT = 10\n+ LIMIT = 11\n" in shown
    assert "there is no such mutant: sample/limits.py, limited: 'return number' -> 'return 0'" in shown


@pytest.mark.parametrize("code", [0, 3])
def test_a_run_that_breaks_off_or_tries_nothing_is_not_a_success(sample, monkeypatch, code):
    judge = sample / "judge"
    judge.write_text(f'#!/bin/sh\necho \'{{"measured": 2, "failing": []}}\'\necho broken >&2\nexit {code}\n')
    judge.chmod(0o755)
    monkeypatch.setattr(mutants.sys, "executable", str(judge))
    chosen = mutants.found(sample, ["sample"])

    def measure():
        return mutants.measure(
            sample, paths=["sample"], seed=1, minutes=1, chosen=chosen, suite=SUITE, accepted=[]
        )

    if code:
        with pytest.raises(CannotMeasure, match="broken"):
            measure()
    else:
        assert not measure()["met"]


def test_behaviour_is_mutated_and_messages_are_not():
    assert changes(SOURCE, MODULE) == {
        ("LIMIT = 10", "LIMIT = 11"),
        ('COLOURS = {"red": 1}', "COLOURS = {}"),
        ('COLOURS = {"red": 1}', 'COLOURS = {"XredX": 1}'),
        ('COLOURS = {"red": 1}', 'COLOURS = {"red": 2}'),
    }
    assert changes(SOURCE, "limited") == {
        ("if number > LIMIT:", "if number >= LIMIT:"),
        ("if number > LIMIT:", "if number <= LIMIT:"),
        ('raise ValueError(f"{number} is more than the limit of {LIMIT}")', "pass"),
        ("return number", "return None"),
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("return a and b", {"return a or b", "return a", "return b", "return None"}),
        ("return not a", {"return a", "return None"}),
        ("return a if b else c", {"return a if not b else c", "return None"}),
        ("return f(a, key=b)", {"return f(a, )", "return None"}),
        ("return (a, 'b')", {"return (a,)", "return ('b',)", "return (a, 'XbX')", "return None"}),
        ("return [x for x in a if x]", {"return [x for x in a if not x]", "return None"}),
        ("return a.lower()", {"return a.upper()", "return None"}),
        ("a.b = c", {"pass"}),
        ("log.info('a', b=c)", {"pass"}),
        ("assert a == b", set()),
    ],
)
def test_a_statement_has_these_mutants(line, expected):
    assert {after for _, after in changes(f"def one():\n    {line}\n", "one")} == expected


def test_a_change_of_a_handler_belongs_to_its_first_statement():
    source = "def one():\n    try:\n        a()\n    except B:\n        b()\n    except C:\n        c()\n"

    raised = {m.before: m.statement for m in mutants_of("a.py", source) if m.after == "raise"}

    assert raised == {"b()": 5, "c()": 7}


def test_mutants_that_look_alike_are_numbered():
    source = (
        "def one(a):\n    if a:\n        return False\n    if not a:\n        return False\n    return a\n"
    )
    alike = [m for m in mutants_of("a.py", source) if m.before == "return False" and m.after == "pass"]

    assert [(m.line, m.nth) for m in alike] == [(3, 1), (5, 2)]
    assert alike[0].name != alike[1].name


def test_a_seed_draws_the_same_mutants_when_others_are_added():
    before = mutants_of("a.py", SOURCE)
    after = mutants_of("a.py", SOURCE + "\n\ndef added(text: str) -> bool:\n    return not text\n")

    drawn = [m.key for m in mutants.draw(after, 1) if m.function != "added"]

    assert drawn == [m.key for m in mutants.draw(before, 1)]
    assert drawn != [m.key for m in mutants.draw(before, 2)]


def test_every_accepted_mutant_exists():
    judgements = mutants.judgements()
    files = sorted({entry.module for entry in judgements})
    existing = {m.key for m in mutants.found(mutants.ROOT, files)}

    assert judgements
    for entry in judgements:
        assert entry.module.startswith(mutants.PATHS)
        assert entry.key in existing
        assert entry.reason


def test_a_sample_of_another_checkout_is_listed(sample):
    chosen = arguments(
        ["mutants", "--root", str(sample), "--paths", "sample/limits.py", "--sample", "3", "--list"]
    )

    report = mutants.run(
        **{
            name: getattr(chosen, name)
            for name in ("seed", "minutes", "sample", "paths", "only", "root", "tests")
        },
        as_list=chosen.as_list,
    )

    assert [(outcome["module"], outcome["verdict"]) for outcome in report["outcomes"]] == [
        ("sample/limits.py", "not reached")
    ] * 3
    assert report["mutants"] > 3


def test_a_name_that_no_mutant_has_is_an_error():
    """A typing mistake must not end as a run in which nothing survived."""
    with pytest.raises(CannotMeasure, match="no mutant is named 00000000: "):
        mutants.run(
            seed=1,
            minutes=1,
            sample=None,
            paths=["authsvc/core/topics.py"],
            only=["00000000"],
            root=mutants.ROOT,
            tests=None,
            as_list=True,
        )
