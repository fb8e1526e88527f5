"""Requests to a Leshan server, and its answers as they were recorded."""

import itertools
import json
import socket
import threading
import time

import pytest

from devicehub.lwm2m.leshan import server as server_module
from devicehub.lwm2m.leshan.address import Address
from devicehub.lwm2m.leshan.server import LeshanServer, Result, ServerAway, ServerRefuses
from devicehub.lwm2m.leshan.shapes import MalformedAnswer
from rig.fake_leshan import TEMPERATURE, fake_leshan

PATH = "/3303/0/5700"


@pytest.fixture
def fake():
    with fake_leshan() as fake:
        fake.register("urn:dev:a")
        fake.nodes["urn:dev:a", PATH] = TEMPERATURE
        yield fake


@pytest.fixture
def server(fake):
    return LeshanServer(Address.parse(fake.url))


def test_registrations_are_listed(fake, server):
    fake.register("urn:dev:b/c?d é")

    assert [one.endpoint for one in server.registrations()] == ["urn:dev:a", "urn:dev:b/c?d é"]


def test_a_long_list_is_read_one_by_one(fake, server, monkeypatch):
    monkeypatch.setattr(server_module, "PIECE", 1000)
    for number in range(300):
        fake.register(f"urn:dev:{number:03}é")

    assert len(list(server.registrations())) == 301


def test_a_registration_that_cannot_be_read_does_not_hide_the_others(fake, server):
    good = json.dumps(fake.register("urn:dev:b"))
    fake.lists_as = f'[{{"endpoint": 7}}, {good} , 8]'.encode()

    found = list(server.registrations())

    assert [isinstance(one, MalformedAnswer) for one in found] == [True, False, True]


def test_a_number_of_very_many_digits_does_not_hide_the_others(fake, server):
    """Python converts at most 4,300 digits of an integer."""
    good = json.dumps(fake.register("urn:dev:b"))
    wrong = good.replace('"lifetime": ', f'"lifetime": {"1" * 5_000}', 1)
    assert wrong != good
    fake.lists_as = f"[{wrong}, {good}]".encode()

    assert [isinstance(one, MalformedAnswer) for one in server.registrations()] == [True, False]


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b'[{"endpoint": "a"', b"<html>", b"[" + b"[" * 300_000])
def test_a_list_that_is_none_is_refused(fake, server, body):
    fake.lists_as = body

    with pytest.raises(MalformedAnswer):
        list(server.registrations())


def test_an_empty_list_is_a_list(fake, server):
    fake.lists_as = b" [ ] "

    assert list(server.registrations()) == []


def test_a_read_returns_the_node_as_it_was_given(server):
    assert server.read("urn:dev:a", PATH)[:3] == (Result.VALUES, {PATH: TEMPERATURE}, "")


def test_an_observation_returns_the_first_value(fake, server):
    assert server.observe("urn:dev:a", [PATH])[:3] == (Result.VALUES, {PATH: TEMPERATURE}, "")
    assert fake.requests[-1] == ("POST", f"/api/clients/urn:dev:a{PATH}/observe")


def test_a_composite_observation_names_both_formats(fake, server):
    fake.nodes["urn:dev:a", "/3/0/9"] = {"kind": "singleResource", "id": 9, "type": "INTEGER", "value": "95"}

    answer = server.observe("urn:dev:a", [PATH, "/3/0/9", "/3/0/99"])

    assert answer.result is Result.VALUES
    assert list(answer.nodes) == [PATH, "/3/0/9"]


def test_status_200_may_be_a_refusal(server):
    assert server.read("urn:dev:a", "/3/0/99")[:3] == (Result.REFUSED, {}, "NOT_FOUND(404)")


def test_an_answer_says_how_long_it_was(fake, server):
    short = server.read("urn:dev:a", PATH).size
    fake.nodes["urn:dev:a", PATH] = TEMPERATURE | {"value": "2" * 1000}

    assert server.read("urn:dev:a", PATH).size == short + 1000 - len(TEMPERATURE["value"])


@pytest.mark.parametrize("name", ["..", "."])
def test_a_name_that_would_be_another_address_is_not_requested(fake, server, name):
    assert server.read(name, PATH).result is Result.REFUSED
    assert fake.requests == []


def test_a_name_with_characters_of_addresses_is_one_level(fake, server):
    fake.nodes["a?b", PATH] = TEMPERATURE
    fake.register("a?b")

    assert server.read("a?b", PATH).result is Result.VALUES


def test_an_endpoint_that_does_not_answer_is_silent(fake, server):
    fake.silent.add("urn:dev:a")

    assert server.read("urn:dev:a", PATH).result is Result.SILENT


@pytest.mark.parametrize("version", ["M15", "M18"])
def test_a_sleeping_endpoint_is_told_in_both_ways(version):
    with fake_leshan(version) as fake:
        fake.register("urn:dev:q", queue_mode=True, sleeping=True)

        assert LeshanServer(Address.parse(fake.url)).read("urn:dev:q", PATH).result is Result.ASLEEP


def test_an_unknown_endpoint_is_unregistered(server):
    answer = server.read("nobody", PATH)

    assert (answer.result, answer.detail) == (
        Result.UNREGISTERED,
        "No registered client with id 'nobody'",
    )


def test_m4_refuses_composite_observations():
    with fake_leshan("M4") as fake:
        fake.register("urn:dev:a")

        assert (
            LeshanServer(Address.parse(fake.url)).observe("urn:dev:a", [PATH, "/3"]).result is Result.REFUSED
        )


def test_the_stream_brings_events_and_ends_when_it_is_closed(fake, server):
    with server.stream() as stream:
        pieces = iter(stream)
        fake.send("urn:dev:a", {PATH: TEMPERATURE})

        assert next(pieces).startswith(b"event: SEND\r\n")

        threading.Timer(0.05, stream.close).start()
        assert list(pieces) == []


def test_a_stream_that_the_server_ends_ends(fake, server):
    with server.stream() as stream:
        fake.break_streams()

        assert list(stream) == []


def test_a_silent_stream_is_dead(server, monkeypatch):
    monkeypatch.setattr(server_module, "SILENT_SECONDS", 0.1)

    with server.stream() as stream, pytest.raises(ServerAway, match="no answer in time"):
        list(stream)


def test_a_server_that_is_away_may_come_back():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        server = LeshanServer(Address.parse(f"http://127.0.0.1:{unused.getsockname()[1]}"))

    for request in (server.stream, lambda: list(server.registrations()), lambda: server.read("a", PATH)):
        with pytest.raises(ServerAway, match=r"Connection refused"):
            request()


def test_a_server_that_is_not_ready_may_become_so(fake, server):
    fake.refused_streams = 1

    with pytest.raises(ServerAway, match="503"):
        server.stream()


def test_another_program_is_not_a_leshan_server(fake):
    with pytest.raises(ServerRefuses, match="status 404: this is not a Leshan demo server"):
        LeshanServer(Address.parse(f"{fake.url}/elsewhere")).stream()


def test_a_wrong_login_is_a_refusal_that_says_what_to_set():
    with fake_leshan(login="hub:correct horse") as fake:
        url = fake.url.replace("//", "//hub@")
        with LeshanServer(Address.parse(url, "correct horse")).stream() as stream:
            stream.close()

        with pytest.raises(ServerRefuses, match="DEVICEHUB_LESHAN_PASSWORD_FILE") as caught:
            LeshanServer(Address.parse(url, "wrong horse")).stream()

    assert "horse" not in str(caught.value)


@pytest.fixture
def says():
    """Return a function that starts a server which sends given bytes to every client, and returns its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def start(text, then_silent=False):
            def serve():
                try:
                    while True:
                        connected, _ = listener.accept()
                        with connected:
                            connected.recv(10_000)
                            for piece in text:
                                connected.sendall(piece)
                            if then_silent:
                                time.sleep(1)
                except OSError:
                    pass

            threading.Thread(target=serve, daemon=True).start()
            return LeshanServer(Address.parse(f"http://127.0.0.1:{listener.getsockname()[1]}"))

        yield start
        listener.shutdown(socket.SHUT_RDWR)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


def test_an_endless_answer_is_not_kept(says):
    server = says(itertools.chain([HEAD, b'"'], itertools.repeat(b"x" * 65536)))

    with pytest.raises(ServerAway, match="too long"):
        server.read("a", PATH)


def test_an_endless_registration_is_not_kept(says):
    server = says(itertools.chain([HEAD, b'[{"endpoint": "'], itertools.repeat(b"x" * 65536)))

    with pytest.raises(MalformedAnswer):
        list(server.registrations())


@pytest.mark.parametrize(
    "text",
    [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[", HEAD + b"["],
)
def test_an_answer_that_breaks_off_is_an_error(says, text):
    with pytest.raises((ServerAway, MalformedAnswer)):
        list(says([text]).registrations())


def test_a_list_answered_with_another_status_may_be_tried_again(says):
    with pytest.raises(ServerAway, match="500"):
        list(says([b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"]).registrations())


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b"", Result.REFUSED),
        (b"[]", Result.REFUSED),
        (b'{"status":"CONTENT(205)"}', Result.REFUSED),
        (b'{"success":true,"content":null}', Result.VALUES),
        (b'{"success":"yes","content":{}}', Result.REFUSED),
    ],
)
def test_an_answer_in_another_form_has_no_values(says, body, result):
    answer = says([HEAD + body]).read("a", PATH)

    assert (answer.result, answer.nodes) == (result, {})


@pytest.fixture
def over_tls(certificate):
    with fake_leshan(certificate=certificate) as fake:
        fake.register("urn:dev:a")
        fake.nodes["urn:dev:a", PATH] = TEMPERATURE
        yield fake


def test_a_server_with_tls_is_followed(over_tls, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    server = LeshanServer(Address.parse(over_tls.url))

    assert [one.endpoint for one in server.registrations()] == ["urn:dev:a"]
    assert server.read("urn:dev:a", PATH).result is Result.VALUES
    with server.stream() as stream:
        pieces = iter(stream)
        over_tls.send("urn:dev:a", {PATH: TEMPERATURE})
        assert next(pieces).startswith(b"event: SEND\r\n")
        threading.Timer(0.05, stream.close).start()
        assert list(pieces) == []


def test_a_certificate_that_is_not_trusted_is_refused(over_tls):
    with pytest.raises(ServerRefuses, match=r"the certificate of https://127\.0\.0\.1:\d+ is not valid here"):
        LeshanServer(Address.parse(over_tls.url)).stream()
