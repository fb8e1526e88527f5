"""Clients that never finish a request block no broker, on a real server that may open few files."""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib.util
import inspect
import json
import socket
import sys
import urllib.request
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import uvloop
from django.contrib.auth import get_user_model
from django.test import Client
from gunicorn.asgi import protocol
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gasgi

from authsvc.serving import worker as serving
from rig import hub, servers
from rig.scenarios import until

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]
FILES, SECONDS = 256, 0.8
LIMIT = FILES * 3 // 4
FLOOD = 2 * FILES
WEB = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Server(NamedTuple):
    port: int
    worker: int
    log: Path

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@pytest.fixture(scope="module")
def server(module_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("serving")
    port = servers.free_port()
    gunicorn = (
        f"{sys.executable} -m gunicorn -c config/gunicorn.conf.py --bind 127.0.0.1:{port}"
        f" --backlog {2 * FLOOD}"  # More than ever wait: the kernel queues connections beyond it again, later.
    )
    command = f"ulimit -Sn {FILES // 2}; ulimit -Hn {FILES}; exec {gunicorn} config.asgi:application"
    with servers.process(
        ["sh", "-c", command],
        env=hub.environment(AUTHSVC_REQUEST_SECONDS=str(SECONDS), WEB_CONCURRENCY="1"),
        cwd=hub.ROOT,
        log=folder / "gunicorn.log",
        ready=lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1).status == 200,
    ) as process:
        [worker] = servers._children(process.pid)
        yield Server(port, worker, folder / "gunicorn.log")


def question(token: str) -> bytes:
    """Return a login of an unknown device, which is denied."""
    body = json.dumps({"username": "stranger", "clientid": "stranger", "password": "x"}).encode()
    return (
        f"POST /mqtt/go-auth/user?k={token} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def answer(client: socket.socket) -> int | None:
    """Read one answer with a short body; return its status, or None if the connection is closed."""
    with suppress(ConnectionError):
        if text := client.recv(65_536):
            return int(text.split(b" ", 2)[1])
    return None


def is_open(client: socket.socket) -> bool:
    """Return whether the server has not closed *client*; the answer need not be read."""
    client.setblocking(False)
    try:
        while client.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    finally:
        client.settimeout(10)
    return False


def ends(client: socket.socket) -> bytes:
    """Return all bytes until the server closes the connection. Raise TimeoutError if it does not."""
    text = b""
    with suppress(ConnectionError):
        while part := client.recv(65_536):
            text += part
    return text


def flood(server: Server, stack: ExitStack, said: bytes, number: int = FLOOD) -> list[socket.socket]:
    clients = []
    for _ in range(number):
        client = stack.enter_context(closing(server.connect()))
        with suppress(ConnectionError):
            client.sendall(said)
        clients.append(client)
    return clients


BEGUN = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost:",
    "half a body": b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
    "half a question": b"POST /mqtt/go-auth/user HTTP/1.1\r\nHost: hub\r\nContent-Length: 9\r\n\r\nx",
    "a question of a stranger": question("no token"),
    "a request, and no more": WEB,
}


@pytest.mark.parametrize("said", BEGUN.values(), ids=BEGUN)
def test_half_requests_block_no_broker(server, token, said):
    """Neither a connected broker nor a new one is blocked by more half requests than there are files."""
    with ExitStack() as stack:
        pooled = [stack.enter_context(closing(server.connect())) for _ in range(10)]
        for broker in pooled:
            broker.sendall(question(token))
            assert answer(broker) == 403

        begun = flood(server, stack, said)

        for broker in pooled:
            broker.sendall(question(token))
            assert answer(broker) == 403
        for _ in range(10):  # A new broker asks at once, within the time limit for a request.
            broker = stack.enter_context(closing(server.connect()))
            broker.sendall(question(token))
            assert answer(broker) == 403
        assert sum(map(is_open, begun)) <= LIMIT // 2


def test_brokers_may_have_more_than_half(server, token):
    with ExitStack() as stack:
        brokers = []
        for _ in range(LIMIT - 10):
            brokers.append(stack.enter_context(closing(server.connect())))
            brokers[-1].sendall(question(token))
            assert answer(brokers[-1]) == 403
        for broker in brokers:
            broker.sendall(question(token))
            assert answer(broker) == 403

        with closing(server.connect()) as browser:
            browser.sendall(WEB)
            assert answer(browser) == 200


def test_waiting_connections_are_closed_before_one_that_is_served(server, token):
    user = get_user_model().objects.create_superuser("operator", password="x")
    browser = Client()
    browser.force_login(user)
    cookie = browser.cookies["sessionid"].value
    with ExitStack() as stack:
        page = stack.enter_context(closing(server.connect()))
        page.sendall(
            f"GET /stream/ HTTP/1.1\r\nHost: localhost\r\nCookie: sessionid={cookie}\r\n\r\n".encode()
        )
        assert answer(page) == 200

        flood(server, stack, b"GET / HT")

        assert is_open(page)
        assert page.recv(65_536)


def test_pipelined_requests_are_answered_whatever_their_length(server, token):
    """EMQX sends up to 100 before it reads an answer; gunicorn's parser stores 64 KiB after the first."""
    padded = f"hub\r\nX-Padding: {'x' * 2_000}".encode()
    pair = question(token).replace(b"hub", padded) + WEB.replace(
        b"localhost", padded.replace(b"hub", b"localhost")
    )
    text = b""
    with closing(server.connect()) as broker:
        broker.sendall(pair * 50)
        while text.count(b"HTTP/1.1 ") < 100 and (part := broker.recv(65_536)):
            text += part

    assert [head[:3] for head in text.split(b"HTTP/1.1 ")[1:]] == [b"403", b"200"] * 50


def test_pipelined_bytes_without_an_answer_are_bounded(server):
    """A client that reads no answer cannot send for ever."""
    with closing(server.connect()) as deaf, pytest.raises(ConnectionError):
        for _ in range(64):
            deaf.sendall(WEB * (1_048_576 // len(WEB)))


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"<script>alert(1)</script>\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 9_000 + b"\r\n\r\n", b"431"),
        (BEGUN["half a head"], b"408"),
    ],
    ids=["400", "414", "431", "408"],
)
def test_answers_of_gunicorn_itself_have_a_policy(server, said, status):
    """Its text may repeat the request."""
    with closing(server.connect()) as client:
        client.sendall(said)
        head, _, _ = ends(client).lower().partition(b"\r\n\r\n")

    assert head.split()[1] == status
    assert b"\r\ncontent-security-policy: default-src 'none'; frame-ancestors 'none'" in head
    assert b"\r\nx-content-type-options: nosniff" in head


def test_a_client_without_progress_is_disconnected(server, token):
    """Slow heads, bodies and readers are; the connection of a broker stays open between two questions."""
    with ExitStack() as stack:

        def said(*parts: bytes) -> socket.socket:
            client = stack.enter_context(closing(server.connect()))
            for number, part in enumerate(parts):
                client.sendall(part)
                if number < len(parts) - 1:
                    assert answer(client) in (200, 403)
            return client

        broker = said(question(token))
        assert answer(broker) == 403
        silent = said(b"")
        slow_head, slow_body = said(BEGUN["half a head"]), said(BEGUN["half a body"])
        later_head = said(question(token), b"POST /mqtt/go-auth/us")
        pipelined_head = said(WEB + b"GET /heal")
        slow_question = said(question(token), BEGUN["half a question"])
        expecting = said(BEGUN["half a body"][:-1].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        deaf = stack.enter_context(closing(socket.socket()))
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(b"GET /static/unfold/css/styles.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 60)

        assert hub.eventually(lambda: is_served(deaf))
        assert ends(silent) == b""
        for client, status in (
            (slow_head, b" 408 "),
            (slow_body, b" 408 "),
            (later_head, b" 408 "),
            (pipelined_head, b" 408 "),
            (slow_question, b" 403 "),
            (expecting, b" 408 "),
        ):
            assert status in ends(client)
        assert hub.eventually(lambda: not is_served(deaf))
        broker.sendall(question(token))
        assert answer(broker) == 403


def is_served(client: socket.socket) -> bool:
    """Return whether a process on this machine has the other end of *client*."""
    port = f":{client.getsockname()[1]:04X}"
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(remote.endswith(port) and inode != "0" for _, _, remote, *_, inode in (f[:10] for f in lines))


def test_a_body_that_comes_byte_by_byte_times_out_too(server):
    with closing(server.connect()) as client:
        client.sendall(BEGUN["half a body"].replace(b"Length: 9", b"Length: 1000000"))
        client.settimeout(0.05)
        text = b""
        for _ in range(1000):
            with suppress(TimeoutError, ConnectionError):
                client.sendall(b"x")
                if text := client.recv(65_536):
                    break

        assert text.startswith(b"HTTP/1.1 408 ")


def test_a_hundred_questions_at_once_are_answered(server, token):
    with closing(server.connect()) as broker:
        broker.sendall(question(token) * 100)
        text = b""
        while text.count(b"HTTP/1.1 403 ") < 100:
            text += broker.recv(65_536)


def test_the_limit_of_files_is_raised_at_the_start(server):
    limits = Path(f"/proc/{server.worker}/limits").read_text().splitlines()

    assert [line.split()[3:5] for line in limits if line.startswith("Max open files")] == [[str(FILES)] * 2]


def test_the_log_reports_too_many_connections_in_few_lines(server):
    with ExitStack() as stack:
        flood(server, stack, b"GET / HT")
        # They stay open until then: for connections that are closed before it accepts them, the server makes no room.
        assert until(lambda: "connections to make room" in server.log.read_text())

    text = server.log.read_text()
    assert text.count("connections to make room") == 1
    assert "Traceback" not in text


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "30s"])
def test_a_wrong_time_limit_is_reported_in_a_sentence(monkeypatch, text):
    monkeypatch.setenv("AUTHSVC_REQUEST_SECONDS", text)

    with pytest.raises(SystemExit, match="write a number of seconds above 0"):
        serving.Worker.check_config(Config(), None)


def test_requests_are_read_by_the_c_parser_where_there_is_one():
    """gunicorn searches for it with the class it is called on, but reads the result from its own class."""
    worker = SimpleNamespace(cfg=Config(), log=None, asgi=None)
    protocol.ASGIProtocol._check_h1c_protocol_available()
    connection = serving.Connection(worker)

    connection._setup_callback_parser()

    module = type(connection._callback_parser).__module__
    assert module.startswith("gunicorn_h1c") == (importlib.util.find_spec("gunicorn_h1c") is not None)


@pytest.mark.parametrize(
    "said", [WEB, BEGUN["half a body"], BEGUN["half a head"], WEB[:-2] + b"a b: c\r\n\r\n"]
)
def test_a_closed_connection_leaves_nothing_in_memory(said):
    """It is freed without the garbage collector, which rarely runs for objects as old as connections."""

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        if (await receive())["type"] == "http.request" and (await receive())["type"] == "http.disconnect":
            return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def connect_and_close() -> None:
        made: list[weakref.ref[serving.Connection]] = []
        cfg = Config()
        cfg.set("asgi_disconnect_grace_period", 0)  # A timer would hold the connection for 3 s.
        worker = SimpleNamespace(
            cfg=cfg,
            log=Logger(cfg),
            asgi=application,
            loop=asyncio.get_running_loop(),
            connections=serving.Connections(10),
            alive=True,
            nr=0,
            nr_conns=0,
            max_requests=sys.maxsize,
        )

        def make() -> serving.Connection:
            connection = serving.Connection(worker)
            made.append(weakref.ref(connection))
            return connection

        async with await worker.loop.create_server(make, "127.0.0.1", 0) as listening:
            _, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
            writer.write(said)
            await writer.drain()
            while not made:
                await asyncio.sleep(0)
            writer.close()
            await writer.wait_closed()
            for _ in range(200):
                if made[0]() is None:
                    break
                await asyncio.sleep(0.01)
        assert made[0]() is None
        assert not worker.connections.web

    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(connect_and_close())
    finally:
        gc.enable()


# Private names of gunicorn that authsvc/serving/worker.py uses, by their class or module.
PRIVATE = {
    protocol.ASGIProtocol: {
        "_body_receiver",
        "_build_http_scope",
        "_callback_parser",
        "_check_h1c_protocol_available",
        "_close_transport",
        "_closed",
        "_current_request",
        "_feed_callback_parser",
        "_flow_control",
        "_http1_buffered",
        "_max_buffer_size",
        "_request_ready",
        "_resume_reading",
        "_send_error_response",
        "_task",
        "_websocket",
    },
    protocol.BodyReceiver: {"_body_wait_expired", "_complete", "_wake_waiter"},
}
# Not private by name, but not documented.
UNDOCUMENTED = {
    protocol.ASGIProtocol: {"reader", "req_count", "transport", "worker"},
    protocol.FlowControl: {"write_paused"},
    gasgi.ASGIWorker: {
        "check_config",
        "init_process",
        "log",
        "loop",
        "run",
        "servers",
        "sockets",
        "worker_connections",
    },
}


def names(node: ast.AST) -> set[str]:
    return {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute) and n.attr.startswith("_")}


@pytest.mark.parametrize("owner", {**PRIVATE, **UNDOCUMENTED}, ids=lambda owner: owner.__name__)
def test_gunicorn_has_the_private_names_that_are_used(owner):
    source = inspect.getsource(owner) + inspect.getsource(gasgi.base.Worker)

    for name in PRIVATE.get(owner, set()) | UNDOCUMENTED.get(owner, set()):
        assert hasattr(owner, name) or f"self.{name} = " in source, name


def test_no_other_private_name_is_used():
    tree = ast.parse(inspect.getsource(serving))
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    own |= {
        t.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Assign)
        for t in n.targets
        if isinstance(t, ast.Attribute)
    }
    own |= {
        n.target.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Attribute)
    }
    private = set().union(*PRIVATE.values())
    used = names(tree)

    assert used - own == private - own
    replaced = {
        *("_build_http_scope", "_feed_callback_parser", "_http1_buffered"),
        *("_resume_reading", "_send_error_response"),
    }
    assert replaced <= own & private  # They are also called.


def test_gunicorn_creates_connections_by_a_name_that_can_be_replaced():
    assert "lambda: ASGIProtocol(self)" in inspect.getsource(gasgi.ASGIWorker._serve)
    assert "await self.app(scope, body_receiver.receive, send)" in inspect.getsource(protocol.ASGIProtocol)
