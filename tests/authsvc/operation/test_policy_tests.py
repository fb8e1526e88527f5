"""`test_policy`: expectations that hold, that do not, and files that are not such a list."""

from __future__ import annotations

import json
import time
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from authsvc.models import Account, Denial, Grant
from authsvc.operation import policy_tests
from authsvc.operation.policy_tests import MAX_BYTES, MAX_TESTS, PolicyTest, UnreadablePolicy, parse
from fleet.models import IrrigationValveDevice
from rig.cast import Cast

pytestmark = pytest.mark.sqlite_first

HOLDS = """
# The station may use its own topics, and no others.
- who: STATION-001
  action: publish
  topic: things/weatherstation/STATION-001/data
  expect: allow
- who: weatherstation/STATION-001
  action: publish
  topic: things/weatherstation/STATION-002/data
  expect: deny
  reason: no_grant
- {who: STATION-001, action: connect, client_id: STATION-002, expect: deny, reason: client_id}
- {who: STATION-001, action: connect, expect: allow}
- {who: on, action: subscribe, topic: '007', expect: deny, reason: unknown_username}
"""


@pytest.fixture
def check(tmp_path: Path):
    def run(text: str | bytes, *arguments: str) -> tuple[int, str]:
        file = tmp_path / "policy.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        out = StringIO()
        try:
            call_command("test_policy", str(file), *arguments, stdout=out)
        except SystemExit as end:
            return int(end.code or 0), out.getvalue()
        except CommandError as error:
            return error.returncode, str(error)
        return 0, out.getvalue()

    return run


def test_what_holds_passes(station: Cast, check):
    assert check(HOLDS) == (0, "5 tests: 5 passed, 0 failed\n")
    assert not Denial.objects.exists()


def test_what_does_not_hold_is_named_with_its_line(station: Cast, check):
    Grant.objects.create(subject="everyone", actions="publish", filter="things/#")

    code, text = check(HOLDS)

    assert code == 1
    failed, summary = text.splitlines()
    assert "policy.yaml:7 weatherstation/STATION-001 publish things/weatherstation/STATION-002/data" in failed
    assert "expected deny, got allow (grant: grant " in failed
    assert summary == "5 tests: 4 passed, 1 failed"


def test_another_reason_is_a_failure(station: Cast, check):
    code, text = check("- {who: STATION-001, action: publish, topic: a, expect: deny, reason: disabled}")

    assert code == 1
    assert "expected deny because of disabled, got no_grant" in text
    assert "1 test: 0 passed, 1 failed" in text


@pytest.mark.parametrize("who", ["STATOIN-001", "weatherstation/STATION-9", "a/b/c", "guest"])
def test_a_misspelled_name_does_not_pass_for_a_deny(station: Cast, check, who):
    code, text = check(f"- {{who: {who}, action: publish, topic: a, expect: deny}}")

    assert code == 1
    assert f"there is no device and no account {who}" in text


def test_a_name_of_two_is_a_failure(station: Cast, check):
    IrrigationValveDevice.objects.bulk_create(
        [IrrigationValveDevice(device_id="STATION-001", mqtt_username="v")]
    )

    assert "names irrigationvalve/STATION-001, weatherstation/STATION-001" in check(HOLDS)[1]


def test_json_has_every_result(station: Cast, check):
    Account.objects.create(username="on", is_superuser=True)

    code, text = check(HOLDS, "--json")

    found = json.loads(text)
    assert (code, found["passed"], found["failed"]) == (1, 4, 1)
    (failed,) = [test for test in found["tests"] if not test["passed"]]
    assert (failed["who"], failed["line"], failed["allowed"]) == ("on", 14, True)


def test_a_failure_cannot_control_the_terminal(station: Cast, check):
    code, text = check('- {who: STATION-001, action: publish, topic: "a\\e[2J", expect: allow}')

    assert code == 1
    assert "\x1b" not in text


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: the file is not a list of tests"),
        ("[]", "1: the file is not a list of tests"),
        ("who: a", "1: the file is not a list of tests"),
        ("- a", "1: a test is a list of names"),
        ("- {who: a}", "1: action is missing"),
        ("- {who: a, action: publish, topic: b}", "1: expect is missing"),
        ("- {who: a, action: publish, topic: b, expect: yes}", "1: expect is not one of allow, deny"),
        ("- {who: a, action: own, topic: b, expect: deny}", "1: action is not one of connect, publish"),
        ("- {who: a, action: publish, topic: b, expect: deny, reason: x}", "1: reason is not one of"),
        ("- {who: a, action: publish, expect: deny}", "1: connect has no topic"),
        ("- {who: a, action: connect, topic: b, expect: deny}", "1: connect has no topic"),
        ("- {who: a, password: b}", "1: there is no such name here; use who, action, expect"),
        ("- {[a]: b}", "1: there is no such name here"),
        ("\n\n- who: a\n  who: b", "4: who stands there twice"),
        ("- {who: [a]}", "1: who is not a text"),
        ("- {who: }", "1: who is not a text"),
        ("- who: a\n  action: [", "2: this is not YAML"),
        ("- &a {who: a}\n- *a", "2: this is not YAML: aliases are not read"),
        ("- who: *a", "1: this is not YAML: aliases are not read"),
        ("- !!python/object/apply:os.system [x]", "1: a test is a list of names"),
        ("--- a\n--- b", "2: this is not YAML"),
        (b"\xff\xfe\x00", "1: this is not"),
        (b"- {who: \x00}", "1: this is not"),
        ("[" * 100_000, "1: "),
    ],
    ids=lambda value: str(value)[:20],
)
def test_another_file_is_refused_with_its_line(check, text, message):
    code, said = check(text)

    assert code == 2
    assert f"policy.yaml:{message}" in said


@pytest.mark.sqlite_only
def test_a_file_is_bounded(check, tmp_path):
    one = "- {who: a, action: connect, expect: deny}\n"
    assert "longer than" in check(b"#" * (MAX_BYTES + 1))[1]
    assert f"more than {MAX_TESTS:,} tests" in check("- a\n" * (MAX_TESTS + 1))[1]
    for path in (tmp_path, tmp_path / "missing.yaml"):
        with pytest.raises(CommandError) as refused:
            call_command("test_policy", str(path))
        assert refused.value.returncode == 2
    assert len(parse(one.encode() * 3)) == 3


@pytest.mark.sqlite_only
def test_a_bomb_of_aliases_takes_no_time(check):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    started = time.process_time()

    assert check("\n".join(lines))[0] == 2
    assert time.process_time() - started < 1


@pytest.mark.sqlite_only
@given(content=st.binary(max_size=60) | st.text("-{}[]:*&!\n who", max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(content):
    try:
        found = parse(content)
    except UnreadablePolicy:
        return
    assert all(isinstance(test, PolicyTest) for test in found)


@pytest.mark.sqlite_only
def test_texts_stay_texts():
    """Neither a number, a boolean, a date nor a null is made of a name."""
    (test,) = parse(b"- {who: 007, action: publish, topic: 2020-01-01, client_id: null, expect: deny}")

    assert (test.who, test.topic, test.client_id) == ("007", "2020-01-01", "null")
    assert policy_tests.KNOWN == ("who", "action", "expect", "topic", "client_id", "reason")
