"""Policy tests: a file of expectations about decisions, checked against the present rules and identities.

    - who: STATION-001
      action: publish
      topic: things/weatherstation/STATION-002/data
      expect: deny
      reason: no_grant

The file is read as plain texts: no type of YAML is made, and no alias is followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from authsvc.core.access import Action, Reason
from authsvc.core.authority import Rules
from authsvc.errors import AuthsvcError
from authsvc.operation.explain import (
    Explanation,
    NotOneIdentity,
    current_rules,
    explain,
    explain_login,
    username_of,
)
from authsvc.operation.wire import CONNECT

MAX_BYTES = 1 << 20
MAX_TESTS = 10_000
ALLOW, DENY = "allow", "deny"
NEEDED = ("who", "action", "expect")
KNOWN = (*NEEDED, "topic", "client_id", "reason")
CHOICES = {
    "action": (CONNECT, *(action.value for action in Action)),
    "expect": (ALLOW, DENY),
    "reason": tuple(reason.value for reason in Reason),
}
# A misspelled name is denied too, and must not pass for the expected deny.
UNKNOWN = frozenset({Reason.UNKNOWN_USERNAME, Reason.INVALID_USERNAME})


class UnreadablePolicy(AuthsvcError):
    """A file that is not a list of policy tests; the message names the line."""


@dataclass(frozen=True)
class PolicyTest:
    """One expectation. *line* is where it stands in its file."""

    line: int
    who: str
    action: str
    expect: str
    topic: str = ""
    client_id: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Result:
    """A test, the decision, and a sentence that says why it failed; empty if it passed."""

    test: PolicyTest
    failure: str = ""
    found: Explanation | None = None

    @property
    def passed(self) -> bool:
        return not self.failure

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        decided = {"allowed": self.found.allowed, "reason": self.found.reason} if self.found else {}
        return vars(self.test) | decided | {"passed": self.passed, "failure": self.failure}


def read(path: Path) -> list[PolicyTest]:
    """Return the tests in the file at *path*. Raise UnreadablePolicy."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadablePolicy(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise UnreadablePolicy(f"{path} is longer than {MAX_BYTES:,} bytes")
    try:
        return parse(content)
    except UnreadablePolicy as error:
        raise UnreadablePolicy(f"{path}:{error}") from error


def parse(content: bytes) -> list[PolicyTest]:
    """Return the tests in *content*. Raise UnreadablePolicy, whose message begins with the line."""
    document = _compose(content)
    if not isinstance(document, yaml.SequenceNode) or not document.value:
        raise UnreadablePolicy("1: the file is not a list of tests")
    if len(document.value) > MAX_TESTS:
        raise UnreadablePolicy(f"1: there are more than {MAX_TESTS:,} tests")
    return [_test(node) for node in document.value]


class _Loader(yaml.SafeLoader):
    """A loader that refuses aliases, of which a short file can make an endless document."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not read", mark)
        return super().compose_node(parent, index)


def _compose(content: bytes) -> Any:
    loader = None
    try:
        loader = _Loader(content)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UnreadablePolicy(f"{line}: this is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise UnreadablePolicy("1: this is not a text of UTF-8") from error
    except RecursionError as error:
        raise UnreadablePolicy("1: this is nested too deeply") from error
    finally:
        if loader is not None:
            loader.dispose()


def _test(node: Any) -> PolicyTest:
    line = node.start_mark.line + 1
    fields = dict(_fields(node, line))
    for name in NEEDED:
        if name not in fields:
            raise UnreadablePolicy(f"{line}: {name} is missing")
    for name, choices in CHOICES.items():
        if name in fields and fields[name] not in choices:
            raise UnreadablePolicy(f"{line}: {name} is not one of {', '.join(choices)}")
    if ("topic" in fields) is (fields["action"] == CONNECT):
        raise UnreadablePolicy(f"{line}: connect has no topic, and each other action has one")
    return PolicyTest(line=line, **fields)


def _fields(node: Any, line: int) -> Iterator[tuple[str, str]]:
    if not isinstance(node, yaml.MappingNode):
        raise UnreadablePolicy(f"{line}: a test is a list of names with a text each")
    seen = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value not in KNOWN if isinstance(key.value, str) else True:
            raise UnreadablePolicy(f"{line}: there is no such name here; use {', '.join(KNOWN)}")
        if key.value in seen:
            raise UnreadablePolicy(f"{line}: {key.value} stands there twice")
        if not isinstance(value, yaml.ScalarNode) or not value.value:
            raise UnreadablePolicy(f"{line}: {key.value} is not a text")
        seen.add(key.value)
        yield key.value, value.value


async def run_tests(tests: list[PolicyTest]) -> list[Result]:
    """Return the results of *tests* with the present rules. Raise errors of the database."""
    rules = await current_rules()
    return [await _run(test, rules) for test in tests]


async def _run(test: PolicyTest, rules: Rules) -> Result:
    try:
        username = await username_of(test.who)
    except NotOneIdentity as error:
        return Result(test, str(error))
    if test.action == CONNECT:
        found = await explain_login(username, test.client_id, rules=rules)
    else:
        found = await explain(username, Action(test.action), test.topic, test.client_id, rules=rules)
    return Result(test, _failure(test, found), found)


def _failure(test: PolicyTest, found: Explanation) -> str:
    decided = ALLOW if found.allowed else DENY
    because = f"{found.reason}: {found.rule or found.nearest or found.sentence}"
    if found.reason in UNKNOWN and test.reason != found.reason:
        return f"there is no device and no account {test.who}"
    if decided != test.expect:
        return f"expected {test.expect}, got {decided} ({because})"
    if test.reason and test.reason != found.reason:
        return f"expected {test.expect} because of {test.reason}, got {because}"
    return ""
