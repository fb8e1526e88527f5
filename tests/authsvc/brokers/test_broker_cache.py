"""`create_broker --cache`: the settings of the cache of mosquitto-go-auth, and the comments about it.

Debian does not have the plugin, so a real mosquitto reads all lines except those of the plugin here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from authsvc.brokers import BROKERS
from authsvc.models import Broker
from rig import servers
from rig.hub import ROOT
from rig.servers import MissingServer

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_only]


def create(*arguments: str) -> tuple[str, str]:
    """Return the standard output and the standard error of `create_broker`."""
    out, err = StringIO(), StringIO()
    call_command("create_broker", "broker-1", *arguments, stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def options(printed: str) -> dict[str, str]:
    lines = [line.split(None, 1) for line in printed.splitlines() if line and not line.startswith("#")]
    assert len({name for name, _ in lines}) == len(lines), "an option is given twice"
    return dict(lines)


def comments(printed: str) -> str:
    return "\n".join(line for line in printed.splitlines() if line.startswith("#"))


@pytest.mark.parametrize("dialect", ["go-auth", "jwt"])
@pytest.mark.parametrize(("cache", "seconds"), [("1s", "1"), ("5s", "5"), ("60s", "60"), ("5m", "300")])
def test_answers_about_topics_are_kept_for_the_given_time(dialect, cache, seconds):
    printed, _ = create(dialect, "--cache", cache)

    set_to = {name: value for name, value in options(printed).items() if "cache" in name}
    assert set_to == {
        "auth_opt_cache": "true",
        "auth_opt_cache_refresh": "false",
        "auth_opt_auth_cache_seconds": "1",
        "auth_opt_acl_cache_seconds": seconds,
    }


@pytest.mark.parametrize("dialect", ["go-auth", "jwt"])
def test_without_the_option_there_is_no_cache(dialect):
    printed, said = create(dialect)

    assert "cache" not in printed
    assert "cache" not in said


def test_the_output_says_what_the_cache_weakens():
    printed, said = create("go-auth", "--cache", "5s")

    for weakness in (
        "also revocations, take up to 5 s to apply",
        "any client id",
        "service is stopped",
        "log in as",
    ):
        assert weakness in comments(printed)
    assert "a revocation applies up to 5 s late" in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("dialect", sorted({broker.dialect for broker in BROKERS} - {"go-auth", "jwt"}))
def test_other_dialects_have_no_such_cache(dialect):
    with pytest.raises(CommandError, match=rf"^--cache is for mosquitto-go-auth .* not for {dialect}$"):
        create(dialect, "--cache", "5s")

    assert not Broker.objects.exists()


@pytest.mark.parametrize("cache", ["0s", "301s", "6m", "1h", "9999999d"])
def test_a_time_out_of_bounds_makes_no_broker(cache):
    """The plugin reads 0 as its default, which is a minute."""
    with pytest.raises(CommandError, match="out of bounds; write 1s to 5m"):
        create("go-auth", "--cache", cache)

    assert not Broker.objects.exists()


@pytest.mark.parametrize("cache", ["", "5", "-5s", "1.5s", "5 s", "on", "٥s"])
def test_a_time_that_cannot_be_read_makes_no_broker(cache):
    with pytest.raises(CommandError):
        create("go-auth", f"--cache={cache}")

    assert not Broker.objects.exists()


def test_json_prints_no_configuration_that_a_cache_could_change():
    with pytest.raises(CommandError, match="--json does not print"):
        create("go-auth", "--cache", "5s", "--json")

    assert not Broker.objects.exists()


def test_the_page_shows_the_printed_lines():
    printed, _ = create("go-auth", "--cache", "5s")
    page = (ROOT / "docs" / "how-to" / "mosquitto.md").read_text()

    lines = [line for line in printed.splitlines() if re.match("auth_opt_.*cache", line)]
    assert [line for line in page.splitlines() if re.match("auth_opt_.*cache", line)] == lines


@pytest.mark.servers
def test_mosquitto_takes_the_printed_configuration(
    tmp_path: Path, needs_real: Callable[[MissingServer], None]
):
    try:
        program = servers._program("mosquitto", package="mosquitto")
    except MissingServer as missing:
        needs_real(missing)
    printed, _ = create("go-auth", "--cache", "5s", "--url", "https://auth.example.org")
    port = servers.free_port()
    lines = [line for line in printed.splitlines() if not line.startswith("auth_")]
    config = tmp_path / "mosquitto.conf"
    text = "\n".join(lines).replace("listener 1883", f"listener {port} 127.0.0.1")
    config.write_text(f"{text}\nuser root\n")

    with servers.process(
        [program, "-c", str(config)],
        env=dict(os.environ),
        log=tmp_path / "mosquitto.log",
        ready=lambda: servers.accepts(port),
    ) as broker:
        assert broker.poll() is None
