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


SHOW = """
import os, django
django.setup()
os.getpid = lambda: 1
from devicehub.commands import wire
print(wire.client_id("hub"), wire.client_id("hub", "-retained"), flush=True)
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    print(wire.client_id("hub"), flush=True)
"""


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_processes_of_one_host_name_and_process_id_have_a_client_id_each():
    """Two processes that were started apart, and one that was forked from the other."""
    (one, retained, forked), (two, *_) = (run_python(SHOW).stdout.split() for _ in range(2))

    assert retained == f"{one}-retained"
    assert one[:-8] == two[:-8] == forked[:-8]
    assert len({one, two, forked}) == 3


@pytest.mark.parametrize(("username", "length"), [(None, 66), ("hub", 60), ("u" * 60, 100), ("u" * 128, 153)])
def test_a_long_username_leaves_less_of_the_host_name(username, length, monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: 12345)
    monkeypatch.setattr("socket.gethostname", lambda: "höst." * 10)

    client_id = wire.client_id(username)

    assert client_id.isascii()
    assert client_id.startswith(f"{username or 'devicehub'}-commands-")
    assert len(client_id) == length
