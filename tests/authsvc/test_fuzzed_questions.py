"""Fuzzed questions: each answer is that of the oracle, and the oracle notices a wrong answer."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.core.access import Reason, deny
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Request
from rig import oracles
from rig.examples import examples
from rig.fuzzed import NAMES, RIGHT, WORDS, _with_field, by_question, mutated, quick, rarely, requests
from rig.oracles import QUESTIONS, judge_body
from rig.seeds import SEEDS

pytestmark = pytest.mark.sqlite_only  # The parsers need no database, and the entrance reads one row of it.


ROOT = Path(__file__).resolve().parents[2]


@by_question
@settings(quick, max_examples=examples(8))
@given(request=requests(), hook=rarely)
def test_every_question_gets_the_right_answer(path, request, hook):
    if not hook:
        request.headers += oracles.pairs({"vernemq-hook": f"auth_on_{path.partition('/')[2]}"})
    judge_body(path, request)


def test_the_oracle_agrees_with_the_contracts():
    """Each case of the contracts is a seed, and PEOPLE are their principals."""
    for path, request in RIGHT:
        judge_body(path, request)


def test_the_seeds_reach_an_allow_of_every_question():
    reached = {path for path, request in RIGHT if oracles.permitted(path, request)}

    assert reached == set(QUESTIONS)


@settings(quick, max_examples=examples(100))
@given(mutated())
def test_a_right_question_with_one_error_gets_the_right_answer(case):
    judge_body(*case)


@by_question
@settings(quick, max_examples=examples(10))
@given(st.data())
def test_a_changed_permitted_question_gets_the_right_answer(path, data):
    """One or two fields get a value from another question, or are added to the question."""
    right = data.draw(st.sampled_from([r for p, r in RIGHT if p == path and oracles.permitted(p, r)]))
    body = right.body
    for _ in range(data.draw(st.integers(1, 2))):
        body = _with_field(
            body,
            data.draw(st.sampled_from(NAMES)),
            data.draw(st.one_of(st.sampled_from([1, 2, 4, True, 2.0]), st.sampled_from(WORDS))),
            twice=False,
        )

    judge_body(path, Request(right.method, right.query, right.headers, body))


@by_question
def test_a_hostile_name_is_denied(path):
    """It replaces each name and each client id, one at a time."""
    rights = [(p, r) for p, r in RIGHT if p == path and r.body and oracles.permitted(p, r)]
    hostile_ids = ["+", "#", "a/b", "x\x00", "\u202eSTATION-001", "STATION-001\u200b", "\ufffd"]
    for hostile_id, name in itertools.product(hostile_ids, ("username", "clientid", "client_id")):
        for _, right in rights:
            body = _with_field(right.body, name, hostile_id, twice=False)
            judge_body(path, Request(right.method, right.query, right.headers, body))
    assert rights or path in ("jwt/user", "jwt/superuser")  # These may come without a body.


def test_two_words_for_the_action_must_agree():
    rights = [r for p, r in RIGHT if p == "emqx/authz" and oracles.permitted(p, r)]
    for right, name in itertools.product(rights, ("action", "access")):
        for word in ("publish", "subscribe", "1", "2", "3"):
            body = _with_field(right.body, name, word, twice=False)
            judge_body("emqx/authz", Request(right.method, right.query, right.headers, body))
    assert rights


def test_the_oracle_notices_a_wrong_answer():
    """An oracle that accepts everything would be useless."""
    path, request = next((p, r) for p, r in RIGHT if p == "go-auth/user" and oracles.permitted(p, r))
    dialect = BY_NAME["go-auth"]
    allow = oracles.answer(path, request)
    refuse = dialect.render(request, deny(Reason.NO_GRANT))
    stranger = Request("POST", "", request.headers, b"{}")

    for question, reply in ((request, refuse), (stranger, allow), (stranger, dialect.fault(stranger))):
        with pytest.raises(AssertionError):
            oracles.judge_reply(path, question, reply)
    with pytest.raises(AssertionError):
        oracles.judge_reply(path, request, allow, admitted=False)


# The inputs of `script/bench fuzz`.


@pytest.mark.parametrize("target", sorted(SEEDS))
def test_each_seed_holds_what_is_promised(target):
    for seed in SEEDS[target]():
        oracles.TARGETS[target](seed)


def test_a_question_survives_as_bytes():
    for path, right in RIGHT:
        data = oracles.encode_question(path, right.method, right.query, oracles.named(right), right.body)
        found, request = oracles.decode_question(data)

        assert (found, request.method, request.query) == (path, right.method, right.query)
        assert request.body == right.body
        assert oracles.permitted(path, request) or not oracles.permitted(path, right) or right.oversized


@pytest.mark.servers
def test_an_input_is_replayed_without_atheris(tmp_path):
    seed = tmp_path / "seed"
    seed.write_bytes(next(SEEDS["body"]()))

    def replay(file: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench", "fuzz", "body", "--replay", str(file)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done, missing = replay(seed), replay(tmp_path / "nothing")

    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "POST go-auth/user?")
    assert (missing.returncode, missing.stdout) == (2, "")
