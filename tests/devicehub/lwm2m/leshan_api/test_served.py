"""The requests of the bridge, byte for byte, to real servers: they ask for HTTP/2, and get HTTP/1.1."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from authsvc import broker_tokens
from devicehub.lwm2m.models import Endpoint, Event, Resource
from rig import hub

EP = "urn:imei:100000000000000"
# As captured from the bridge, but for the address and the path.
REQUEST = (
    "POST {path} HTTP/1.1\r\n"
    "Connection: Upgrade, HTTP2-Settings\r\n"
    "Content-Length: {length}\r\n"
    "Host: {host}\r\n"
    "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n"
    "Upgrade: h2c\r\n"
    "User-Agent: Java-http-client/17.0.15\r\n"
    "Content-Type: application/json\r\n\r\n"
)
BODIES = [
    {
        "ep": EP,
        "obj_id": 10240,
        "val": {"kind": "singleResource", "id": 0, "type": "TIME", "value": 1795933949432},
    },
    {
        "ep": EP,
        "obj_id": 3303,
        "val": {"kind": "singleResource", "id": 5700, "type": "OPAQUE", "value": "4038800000000000"},
    },
]


def head_of(connection: socket.socket) -> str:
    """Return the head of a reply, and read its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head.decode()


@pytest.mark.servers
@pytest.mark.parametrize("serve", [hub.gunicorn, hub.runserver], ids=["gunicorn", "runserver"])
@pytest.mark.django_db(transaction=True)
def test_the_bridge_is_answered_in_http_1_1(serve, tmp_path):
    Endpoint.objects.create(device_id=EP)
    token = broker_tokens.create_broker("bridge", ["leshan"])[1]
    with serve(tmp_path) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port), 10) as connection:
            for content in BODIES:
                body = json.dumps(content, indent=2).encode()
                head = REQUEST.format(
                    path=f"/k/{token}/leshan_api/resource/single", length=len(body), host=address.netloc
                )
                connection.sendall(head.encode() + body)
                assert head_of(connection).startswith("HTTP/1.1 201 ")

    assert Resource.objects.get().value == 24.5
    assert set(Event.objects.values_list("type", flat=True)) == {"registration", "notification"}
    log = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert token not in log
