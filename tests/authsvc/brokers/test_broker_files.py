"""Output of `create_broker` for a broker with two files: each file separately, ready to paste."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from django.core.management import call_command

from authsvc.brokers import BY_DIALECT
from rig.hub import ROOT

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_only]
FILES = {
    "rabbitmq": {"rabbitmq.conf": "#", "advanced.config": "%"},
    "emqx4": {"emqx.conf": "##", "plugins/emqx_auth_http.conf": "##"},
}


def printed(dialect: str) -> list[str]:
    """Return the files of *dialect* that `create_broker` prints below the line with the token."""
    out = StringIO()
    call_command("create_broker", "broker-1", dialect, stdout=out, stderr=StringIO())
    return out.getvalue().rstrip("\n").split("\n\n")[1:]


@pytest.mark.parametrize("dialect", sorted(BY_DIALECT))
def test_each_file_begins_with_its_name_in_a_comment_of_its_own_syntax(dialect):
    files = printed(dialect)

    named = FILES.get(dialect, {})
    assert len(files) == max(1, len(named))
    for text, (name, sign) in zip(files, named.items(), strict=False):
        assert re.match(rf"{sign} {re.escape(name)}\b", text)


def test_no_comment_of_rabbitmq_conf_holds_what_must_be_in_the_other_file():
    """A setting of advanced.config in a comment would be pasted into the wrong file and never read."""
    rabbitmq_conf, advanced_config = printed("rabbitmq")

    assert "ignore_colons_in_username" not in rabbitmq_conf
    settings = [line for line in rabbitmq_conf.splitlines() if not line.startswith("#")]
    assert [line for line in settings if not re.fullmatch(r"[a-z_.0-9]+ = \S+", line)] == []
    assert advanced_config.splitlines()[1:] == ["[{rabbitmq_mqtt, [{ignore_colons_in_username, true}]}]."]


@pytest.mark.parametrize("dialect", sorted(BY_DIALECT))
def test_no_other_file_is_hidden_in_a_comment(dialect):
    below_the_name = [line for text in printed(dialect) for line in text.splitlines()[1:]]

    assert [line for line in below_the_name if re.match(r"[#%]+ \S+\.(conf|config)\b", line)] == []


@pytest.mark.parametrize("dialect", sorted(FILES))
def test_the_page_shows_each_file_in_a_block_of_its_own(dialect):
    page = (ROOT / "docs" / "how-to" / f"{dialect}.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shown = [text.splitlines() for language, text in blocks if not language]

    token = re.compile(r"[\w-]{43}")
    for text in printed(dialect):
        lines = [token.sub("TOKEN", line) for line in text.splitlines()[1:]]
        assert lines in shown
