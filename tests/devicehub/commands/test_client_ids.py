"""The client ids of processes that send commands: unique, and not too long."""

import re

import pytest

from devicehub.commands import wire
from rig.command_queue import run_python


def test_two_pods_have_a_client_id_each(monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: 1)
    ids = []
    for pod in ("abcde", "fghij"):
        monkeypatch.setattr(
            "socket.gethostname", lambda pod=pod: f"devicehub-production-ingest-7d9f8b6c5-{pod}"
        )
        ids.append(wire.client_id("hub"))

    assert ids == [wire.client_id("hub").replace("fghij", "abcde"), wire.client_id("hub")]
    assert re.fullmatch(r"hub-commands-.{27}fghij-1-[0-9a-f]{8}", ids[1])


def test_two_processes_of_one_host_name_and_process_id_have_a_client_id_each():
    show = "import os, django; django.setup(); os.getpid = lambda: 1\n"
    show += "from devicehub.commands import wire; print(wire.client_id('hub'), wire.client_id('hub', '-retained'))"

    one, two = (run_python(show).stdout.split() for _ in range(2))

    assert one[1] == f"{one[0]}-retained"
    assert one[0][:-8] == two[0][:-8]
    assert one[0] != two[0]


def test_a_forked_process_has_a_client_id_of_its_own():
    show = "import os, django; django.setup(); os.getpid = lambda: 1\nfrom devicehub.commands import wire\n"
    show += "child = os.fork()\nif child: os.waitpid(child, 0)\nprint(wire.client_id('hub'), flush=True)"

    ids = run_python(show).stdout.split()

    assert len(ids) == len(set(ids)) == 2


@pytest.mark.parametrize(("username", "length"), [(None, 66), ("hub", 60), ("u" * 60, 100), ("u" * 128, 153)])
def test_a_long_username_leaves_less_of_the_host_name(username, length, monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: 12345)
    monkeypatch.setattr("socket.gethostname", lambda: "höst." * 10)

    client_id = wire.client_id(username)

    assert client_id.isascii()
    assert client_id.startswith(f"{username or 'devicehub'}-commands-")
    assert len(client_id) == length
