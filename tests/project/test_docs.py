"""Docs can fail: everything that has a name in the code has its entry, and links resolve."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Container, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.urls import URLPattern, get_resolver

from authsvc.core import access, grants, passwords
from authsvc.dialects import DIALECTS
from authsvc.operation import metrics
from bench import __main__ as bench_command
from devicehub import api_keys, roles
from devicehub.api import problems
from devicehub.messages import message
from devicehub.models import CommandState
from devicehub.provisioning import credentials_file
from rig.pages import BENCHES, DOCS, PAGES, ROOT, page

pytestmark = pytest.mark.sqlite_only

CODE = [
    *(p for folder in ("authsvc", "devicehub", "config") for p in sorted((ROOT / folder).rglob("*.py"))),
    *(p for p in sorted((ROOT / "script").iterdir()) if p.is_file()),
    *ROOT.glob("docker-compose.yml"),
]
# Django's and django-axes' own; how script/demo talks to itself.
OF_OTHERS = {"DJANGO_SETTINGS_MODULE", "AXES_HANDLER", "DEMO_BEGAN", "SUDO_USER"}

GLOSSARY = {
    *("broker", "client", "topic", "topic filter", "client id", "username", "QoS", "retain"),
    *("retained message", "will", "session", "shared subscription", "share", "acknowledgement", "keep-alive"),
    *("publish", "subscribe", "receive"),
    *("endpoint", "endpoint name", "registration", "lifetime", "queue mode", "definition", "path"),
    *("notification", "Send", "event", "object", "object instance", "resource", "resource instance"),
    *("read", "write", "execute", "observe", "pack", "record"),
    *("ask", "question", "caller", "broker token", "dialect", "fault", "principal", "account", "directory"),
    *("keeper", "claimant", "claim", "grant", "rule", "policy", "decision", "verdict", "denial", "key"),
    *("nearest rule", "policy test", "period", "group", "member", "tag"),
    *("credentials", "API key", "token", "scheme", "overlap", "provisioning"),
    *("cached", "stamp", "stale", "revision", "deaf"),
    *("device type", "kind", "store", "reading", "sample", "state field", "command", "reply", "presence"),
    *("rollup", "bucket", "simulated device"),
    *("ingest", "worker", "listener", "hook", "batch", "item", "outcome", "quarantine", "allowance"),
    *("announcer", "intake", "peer", "silence", "task"),
    *("pruning", "pace", "portion", "partition", "removal", "erasure", "retained topic"),
}


def section(text: str, heading: str) -> str:
    """Return the text below *heading*, up to the next one of its level or above, without code blocks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    level = heading.split(" ")[0]
    found = re.search(
        rf"^{re.escape(heading)}$\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"there is no {heading!r}"
    return found[1]


def table(text: str) -> dict[str, str]:
    """Return the entries of the tables of *text*, each with the rest of its row."""
    return dict(re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE))


def rows(text: str) -> set[str]:
    """Return the entries of the tables of *text*: the code at the beginning of each row."""
    return set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))


# Names in the code


@cache
def settings_in_code() -> set[str]:
    """Return the names of all settings that the code reads."""
    reads = re.compile(
        r"""
        (?:getattr\(django_settings,\ |\b(?:text|texts|flag|secret)\(|\bport\(|environ\.get\(|environ\[)
        "([A-Z][A-Z0-9_]+)"
        |\$\{([A-Z][A-Z0-9_]+):[-?]  # a shell script's, or docker compose's
        |^[A-Z]+\ =\ "(AUTHSVC_[A-Z_]+)"$  # read by a name of its own
        """,
        re.VERBOSE | re.MULTILINE,
    )
    found = (match for path in CODE for match in reads.findall(path.read_text()))
    return {a or b or c for a, b, c in found} - OF_OTHERS


@cache
def secrets_in_code() -> set[str]:
    """Return the names of the settings that hold secrets."""
    return set(re.findall(r'\bsecret\("(\w+)"', (ROOT / "config" / "settings.py").read_text()))


def commands_in_code() -> dict[str, BaseCommand]:
    """Return our management commands by name."""
    ours = {config.name for config in apps.get_app_configs() if (ROOT / config.name.split(".")[0]).is_dir()}
    return {name: load_command_class(app, name) for name, app in get_commands().items() if app in ours}


def arguments(command: BaseCommand, name: str) -> set[str]:
    """Return the arguments of *command* that Django does not add."""
    inherited = {a.dest for a in BaseCommand().create_parser("manage.py", name)._actions}
    return options(command.create_parser("manage.py", name), inherited)


def options(parser: ArgumentParser, inherited: Container[str] = ("help",)) -> set[str]:
    """Return the arguments of *parser* that are not *inherited*: the long form of an option, or a name."""
    own = [action for action in parser._actions if action.dest not in inherited]
    return {action.option_strings[-1] if action.option_strings else action.dest for action in own}


@cache
def check_ids_in_code() -> set[str]:
    """Return the ids of our system checks."""
    found: set[str] = set()
    for path in CODE:
        found |= set(re.findall(r'id="((?:authsvc|devicehub)\.[EW]\d+)"', path.read_text()))
    return found


def paths(patterns: Iterable[Any], prefix: str = "") -> Iterator[str]:
    """Yield all addresses of the site; of the admin only its root."""
    for pattern in patterns:
        path = f"{prefix}{pattern.pattern}"
        if isinstance(pattern, URLPattern) or path == "admin/":
            yield path
        elif path != "mqtt/":
            yield from paths(pattern.url_patterns, path)


# Each name has its entry, and nothing else has one


def test_every_setting_has_its_entry():
    assert rows(page("reference/settings.md")) == settings_in_code()


def test_every_secret_may_come_from_a_file_and_the_page_says_so():
    text = page("reference/settings.md")

    assert {name for name in secrets_in_code() if f"`{name}_FILE`" not in text} == set()


def test_every_management_command_has_its_entry():
    headings = re.findall(r"^## `manage\.py (\w+)`$", page("reference/commands.md"), re.MULTILINE)

    assert sorted(headings) == sorted(commands_in_code())


@pytest.mark.parametrize("name", sorted(commands_in_code()))
def test_every_argument_of_a_command_has_its_entry(name):
    text = section(page("reference/commands.md"), f"## `manage.py {name}`")

    assert rows(text) == arguments(commands_in_code()[name], name)


def test_every_script_has_its_entry():
    """Except script/bench, whose page stands beside its code."""
    headings = re.findall(r"^### `script/([\w-]+)`$", page("reference/commands.md"), re.MULTILINE)
    scripts = {path.name for path in (ROOT / "script").iterdir() if path.is_file()}

    assert sorted(headings) == sorted(scripts - {"bench"})


def test_every_bench_has_its_entry_with_its_options():
    text = BENCHES.read_text()
    benches = bench_command.make_parser()[1]
    alone = {"fuzz", "mutants"}  # they measure no database
    common = set.intersection(*(options(parser) for name, parser in benches.items() if name not in alone))

    assert re.findall(r"^## `script/bench (\w+)`$", text, re.MULTILINE) == list(benches)
    assert rows(text.partition("\n## ")[0]) == common
    for name, parser in benches.items():
        own = options(parser) - (set() if name in alone else common)
        assert rows(section(text, f"## `script/bench {name}`")) == own, name


def test_every_question_of_every_dialect_has_its_entry():
    asked = {f"/mqtt/{dialect.name}/{question}" for dialect in DIALECTS for question in dialect.questions}

    assert rows(section(page("reference/urls.md"), "## Questions of brokers")) == asked


def test_every_page_of_the_site_has_its_entry():
    """The routes of the REST API are in docs/reference/openapi.yaml."""
    site = {re.sub(r"<\w+:", "<", f"/{path}") for path in paths(get_resolver().url_patterns)}
    site = {
        path for path in site if not path.startswith("/api/") or path in ("/api/", "/api/docs/", "/api/token")
    }

    assert rows(section(page("reference/urls.md"), "## Pages")) == site


def test_every_metric_has_its_entry_with_its_labels():
    collected = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric.type
        for metric in metrics._Collector([]).collect()
    }
    entries = table(section(page("reference/urls.md"), "## Metrics").partition("### Of a follower")[0])

    assert {name: entry.split("|")[0].strip() for name, entry in entries.items()} == collected


def test_every_reason_and_note_of_readyz_has_its_entry():
    """A placeholder of a sentence stands for what the page shows in its place."""
    code = "".join(
        (ROOT / "authsvc" / f"{name}.py").read_text() for name in ("operation/readiness", "freshness/changes")
    )
    sentences = re.findall(
        r'(?:return \[|NotListening\(|reason = |return |kept = )f?"\s*([A-Z][^"]+\.)', code
    )
    text = section(page("reference/urls.md"), "## Readiness")
    shown = re.findall(r"^\| ([A-Z][^|]+\.) \|", text, re.MULTILINE)

    assert len(sentences) > 8
    missing = []
    for sentence in (re.sub(r"\{kept\}", "", sentence) for sentence in sentences):
        pattern = r"[\w.]+".join(re.escape(part) for part in re.split(r"\{[^}]+\}", sentence))
        if not any(re.fullmatch(pattern, entry) for entry in shown):
            missing.append(sentence)
    assert missing == []


def test_every_dialect_is_named_where_a_broker_is_chosen():
    brokers = section(page("README.md"), "## Connect a broker")
    named = set(re.findall(r"^\| [^|]+ \| `([\w-]+)` \|", brokers, re.MULTILINE))
    choices = section(page("reference/commands.md"), "## `manage.py create_broker`")

    assert named == {dialect.name for dialect in DIALECTS}
    assert {name for name in named if f"`{name}`" not in choices} == set()


def test_every_reason_of_authorization_has_its_entry():
    assert rows(page("reference/reasons.md")) == {reason.value for reason in access.Reason}


def test_every_scheme_of_a_stored_hash_has_its_entry_with_its_bounds():
    entries = table(section(page("how-to/move-a-fleet.md"), "## Hashes that can be imported"))
    bounds = {scheme.name: {f"{limit:,}" for limit in scheme.limits.values()} for scheme in passwords.SCHEMES}

    said = {name: set(re.findall(r"[\d,]*\d", row.split("|")[-1])) for name, row in entries.items()}
    assert said == bounds


def test_every_column_and_verdict_of_an_import_has_its_entry():
    text = page("how-to/move-a-fleet.md")

    assert rows(section(text, "## 2. Write the file")) == set(credentials_file.COLUMNS)
    assert rows(section(text, "## 3. See the verdict of each row")) == {
        verdict.value for verdict in credentials_file.RowOutcome
    }


def test_every_placeholder_of_a_grant_has_its_entry():
    names = {f"{{{name}}}" for name in grants.PLACEHOLDERS}

    assert rows(section(page("how-to/grant-topics.md"), "## Placeholders")) == names


def test_every_reason_and_outcome_of_ingest_has_its_entry():
    text = page("reference/quarantine.md")

    assert rows(section(text, "## Outcomes")) == {outcome.value for outcome in message.Outcome}
    assert rows(section(text, "## Reasons of the quarantine")) == {r.value for r in message.FailureReason}


def test_every_role_has_its_entry():
    assert rows(section(page("how-to/people-and-roles.md"), "## Roles")) == set(roles.ALL_ROLES)


def test_every_state_of_a_command_has_its_entry():
    states = section(page("how-to/send-commands.md"), "## States of a command")

    assert rows(states) == set(CommandState.values)


def test_every_problem_of_the_api_has_its_entry():
    """The table shows the status, the title and the advice of each."""
    shown = {
        code: tuple(cell.strip() for cell in row.split("|")[:3])
        for code, row in table(section(page("reference/rest-api.md"), "## Errors")).items()
    }

    assert shown == {
        f"{problems.PREFIX}{code}": (str(kind.status), kind.title, kind.advice)
        for code, kind in problems.KINDS.items()
    }


def test_every_scope_of_an_api_key_has_its_entry():
    entries = table(section(page("reference/rest-api.md"), "### Keys of programs"))

    said = {scope: row.strip(" |") for scope, row in entries.items()}
    assert said == {scope: text[0].lower() + text[1:] for scope, text in api_keys.SCOPES.items()}


def test_every_system_check_has_its_entry():
    headings = re.findall(r"^### `([\w.]+)`$", page("reference/checks.md"), re.MULTILINE)

    assert sorted(headings) == sorted(check_ids_in_code())


def test_every_term_is_in_the_glossary():
    terms = re.findall(r"^- \*\*([^*]+)\*\*: .+\.$", page("glossary.md"), re.MULTILINE)

    assert sorted(terms) == sorted(GLOSSARY)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_only_what_exists(path):
    text = path.read_text()
    words = set(re.findall(r"\b(?:AUTHSVC|DEVICEHUB|DEMO)_[A-Z0-9_]+[A-Z0-9]", text))
    commands = set(re.findall(r"manage\.py ([a-z0-9_]+)", text))
    scripts = set(re.findall(r"\bscript/([a-z-]+)", text))
    checks = set(re.findall(r"\b(?:authsvc|devicehub)\.[EW]\d+", text))

    assert words <= settings_in_code() | {f"{name}_FILE" for name in secrets_in_code()}
    assert commands <= set(get_commands())
    assert {name for name in scripts if not (ROOT / "script" / name).exists()} == set()
    assert checks <= check_ids_in_code()


# Links


def targets(path: Path) -> list[str]:
    """Return the relative links and images of a page, except those in code."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", t)]


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_images_resolve(path):
    broken = []
    for target in targets(path):
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)

    assert broken == []


def test_every_page_can_be_reached_from_the_readme():
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            links = ((path.parent / target.partition("#")[0]).resolve() for target in targets(path))
            waiting += [link for link in links if link.suffix == ".md" and link.exists()]

    assert [path for path in PAGES if path not in reached] == []


def test_the_index_has_a_sentence_for_every_page():
    index = DOCS / "README.md"
    rows_of_pages = re.findall(r"^\| (.+) \|$", index.read_text(), re.MULTILINE)
    linked = {
        (DOCS / target).resolve()
        for row in rows_of_pages
        for target in re.findall(r"\]\(([^)#]+)\)", row)
        if len(re.sub(r"\[[^]]*\]\([^)]*\)", "", row).split()) > 3
    }

    assert [path for path in PAGES if path not in linked | {index, ROOT / "README.md"}] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80
