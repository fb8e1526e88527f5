"""The command listen_leshan: its arguments, its lines, and its exit codes."""

import re
import shlex
import signal
import socket
import sys
import urllib.request

import pytest
from django.core.management import CommandError, call_command

from devicehub.lwm2m.leshan.address import Address
from devicehub.lwm2m.leshan.exposition import OfFollower
from devicehub.lwm2m.leshan.plans import wish
from devicehub.lwm2m.leshan.process import Process
from devicehub.lwm2m.management.commands.listen_leshan import Command
from devicehub.worker import exposition
from rig import servers
from rig.fake_leshan import fake_leshan
from rig.hub import environment
from rig.pages import ROOT, marked, page


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["coap://leshan"], "not a URL such as http://leshan.internal:8080"),
        (["http://hub:secret@leshan"], "leave it out, and set DEVICEHUB_LESHAN_PASSWORD"),
        (["http://leshan", "--observe", "temperature"], "'temperature' is not a path"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, reason):
    with pytest.raises(CommandError, match=reason) as caught:
        call_command("listen_leshan", *arguments)

    assert "secret" not in str(caught.value)


def test_a_wrong_setting_is_one_line(settings):
    settings.DEVICEHUB_LESHAN_OBSERVE = ["3303/x"]

    with pytest.raises(CommandError, match="DEVICEHUB_LESHAN_OBSERVE: '3303/x' is not a path"):
        call_command("listen_leshan", "http://127.0.0.1:1")


def test_metrics_are_those_of_the_page():
    process = Process(Address.parse("http://127.0.0.1:1"), [])
    port = servers.free_port()
    end = exposition.serve("127.0.0.1", port, OfFollower(process))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
            said = reply.read().decode()
    finally:
        end()

    documented = page("reference/urls.md").partition("### Of a follower of a Leshan server")[2]
    documented = documented.partition("###")[0]
    names = re.findall(r"# TYPE (devicehub_leshan_\w+)", said)
    assert sorted(names) == sorted(re.findall(r"^\| `(devicehub_\w+)`", documented, re.MULTILINE))
    assert "\ndevicehub_leshan_connected 0.0\n" in said


def test_metrics_at_a_port_that_is_taken_are_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"--metrics: cannot listen on 127.0.0.1, port {port}"):
            call_command("listen_leshan", "http://127.0.0.1:1", "--metrics", str(port))


@pytest.mark.servers
@pytest.mark.sqlite_first
def test_it_follows_until_a_signal_and_ends_with_1_after_a_refusal(transactional_db, tmp_path):
    """The commands of the page are those that run, with another address."""
    first, second = (shlex.split(text)[1:] for text in marked(page("how-to/leshan.md"), "listen_leshan"))
    parser = Command().create_parser("manage.py", "listen_leshan")
    assert parser.parse_args(second[2:]).observe == [wish("3303"), wish("3304/0/5700")]

    def run(url, log, password):
        return servers.process(
            [sys.executable, *first[:2], url.replace("//", "//hub@")],
            env=environment(DEVICEHUB_LESHAN_PASSWORD=password),
            cwd=ROOT,
            log=log,
            ready=lambda: "follows" in log.read_text() or "CommandError" in log.read_text(),
        )

    with fake_leshan(login="hub:correct horse") as fake:
        fake.register("stranger", links=[])
        with run(fake.url, tmp_path / "right.log", "correct horse") as process:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        right = (tmp_path / "right.log").read_text()
        assert f"follows {fake.url}; registered endpoints: 1" in right
        assert "Stopped. 0 stored, 0 partial, 1 failed" in right

        with run(fake.url, tmp_path / "wrong.log", "wrong horse") as process:
            assert process.wait(20) == 1
        wrong = (tmp_path / "wrong.log").read_text()
    assert wrong.count("\n") == 1
    assert "answers with status 401" in wrong
    assert "horse" not in right + wrong
