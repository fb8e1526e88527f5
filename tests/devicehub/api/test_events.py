"""The stream of events: complete, in order, limited to what its caller may see, and resumed where it ended."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from structlog.testing import capture_logs

from authsvc.models import Denial
from devicehub import api_keys, roles
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds import topics
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message
from devicehub.models import ApiKey, CommandState, DeviceCommand, SiteScope
from devicehub.stream import broadcast, cursors, feed, sources, thread
from fleet.models import WeatherStationDevice
from rig.programs import PROBLEM, Program, person

pytestmark = pytest.mark.django_db(transaction=True)
beats_every, checks_every = broadcast.HEARTBEAT, broadcast.CHECK_SECONDS


class Heard(NamedTuple):
    """One event as a client reads it."""

    id: str
    name: str
    data: Any


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look and check often, and leave no connection behind."""
    monkeypatch.setattr(broadcast, "SECONDS", 0.01)
    monkeypatch.setattr(broadcast, "CHECK_SECONDS", 0.05)
    yield
    thread.executor.submit(connections.close_all).result()
    assert not broadcast._open


@pytest.fixture
def station() -> WeatherStationDevice:
    return WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="s1", site="north")


@pytest.fixture
def neighbour() -> WeatherStationDevice:
    return WeatherStationDevice.objects.create(device_id="STATION-002", mqtt_username="s2", site="south")


def key_of(user: User, scopes: Sequence[str] = tuple(api_keys.SCOPES), site: str = "") -> str:
    return api_keys.create(user, "program", scopes, site=site).secret


def send(device: WeatherStationDevice, body: Any, message_type: str = "data") -> None:
    topic = topics.build(registry.get("weatherstation"), device.device_id, message_type)
    pipeline([Message(topic, json.dumps(body).encode(), timezone.now())])


def deny(principal: str) -> None:
    now = timezone.now()
    row = {
        "dialect": "emqx",
        "username": "x",
        "action": "publish",
        "topic": f"a/{principal}",
        "reason": "no_grant",
    }
    Denial.objects.create(principal=principal, first_at=now, last_at=now, **row)


class Client:
    """A client of one stream. Use it inside the loop."""

    def __init__(self, key: str = "", user: User | None = None) -> None:
        self._key, self._user = key, user
        self.response: Any = None
        self.raw = b""
        self.last_id = ""

    async def open(self, query: str = "", last: str | None = None) -> Client:
        client = AsyncClient()
        if self._user is not None:
            await client.aforce_login(self._user)
        headers = {"Authorization": f"Api-Key {self._key}"} if self._key else {}
        last = self.last_id if last is None else last
        if last:
            headers["Last-Event-ID"] = last
        self.raw = b""
        self.response = await client.get(f"/api/events/{query}", headers=headers)
        if self.response.status_code == 200:
            self._parts: AsyncGenerator[bytes, None] = self.response._iterator
        return self

    async def hear(self, count: int, seconds: float = 20) -> list[Heard]:
        """Return the next events, at most *count*."""
        found: list[Heard] = []
        try:
            async with asyncio.timeout(seconds):
                while len(found) < count:
                    part = await anext(self._parts, None)
                    if part is None:
                        break
                    self.raw += part
                    found += self._read(part)
        except TimeoutError:
            pass
        return found

    def _read(self, part: bytes) -> list[Heard]:
        lines = [
            line.partition(": ") for line in part.decode().splitlines() if ": " in line and line[0] != ":"
        ]
        fields = {name: value for name, _, value in lines}
        self.last_id = fields.get("id", self.last_id)
        if "event" not in fields:
            return []
        return [Heard(self.last_id, fields["event"], json.loads(fields["data"]))]

    async def close(self) -> None:
        if self.response.status_code == 200:
            await self._parts.aclose()
        await sync_to_async(self.response.close)()
        await sync_to_async(connections.close_all)()


@pytest.fixture
def run(loop: asyncio.Runner) -> Callable[[Any], Any]:
    """Return a function that runs a coroutine."""
    return loop.run


def test_everything_that_happens_is_sent(run, station):
    """Readings, the state of a device, a command in each state, and a denial, each with its address and times."""

    async def listen() -> list[Heard]:
        client = await Client(key).open()
        start = await client.hear(1)
        assert start[0].name == "start"
        assert client.response["Content-Type"] == "text/event-stream"
        assert client.response["Cache-Control"] == "no-store"
        await sync_to_async(send)(station, {"temperature": 21.5, "colour": "red"})
        # A message may be stored after a look at the devices, and before the one at the readings.
        found = sorted(await client.hear(2), key=lambda one: one.name, reverse=True)
        await sync_to_async(send)(station, {"status": "error"}, "status")
        found += await client.hear(1)
        row = await sync_to_async(DeviceCommand.objects.create)(
            device_key="weatherstation/STATION-001", name="restart"
        )
        found += await client.hear(1)
        row.state, row.answered_at = CommandState.ANSWERED, timezone.now()
        await sync_to_async(row.save)()
        found += await client.hear(1)
        await sync_to_async(deny)("weatherstation/STATION-001")
        found += await client.hear(1)
        await client.close()
        return found

    key = key_of(person("ada"))
    found = run(listen())
    assert [one.name for one in found] == ["status", "readings", "status", "commands", "commands", "denials"]
    connected, readings, reported, queued, answered, denied = (one.data for one in found)
    assert (connected["status"], connected["connected"]) == ("online", True)
    assert (reported["status"], reported["device"]) == ("error", "weatherstation/STATION-001")
    assert readings["values"] == {"temperature": {"value": 21.5, "unit": "Cel"}}
    assert (readings["device"], readings["type"], readings["device_id"]) == (
        "weatherstation/STATION-001",
        "weatherstation",
        "STATION-001",
    )
    assert readings["timestamp"].endswith("Z")
    assert (queued["state"], queued["answered_at"]) == ("queued", None)
    assert answered["state"] == "answered"
    assert denied["topic"] == "a/weatherstation/STATION-001"
    assert len({one.id for one in found}) == 6


def test_a_client_goes_on_where_it_was(run, station):
    """Nothing is lost and nothing comes twice, from whichever event it goes on; another process serves it as well."""

    async def listen() -> None:
        client = await Client(key).open("?type=readings,commands")
        await client.hear(1)
        for number in range(3):
            await sync_to_async(send)(station, {"temperature": number})
        first = await client.hear(3)
        await client.close()
        assert broadcast._current is None
        for number in range(3, 6):
            await sync_to_async(send)(station, {"temperature": number})
        await sync_to_async(DeviceCommand.objects.create)(
            device_key="weatherstation/STATION-001", name="restart"
        )
        for position, event in enumerate(first):
            again = await client.open("?type=readings,commands", event.id)
            found = await again.hear(6 - position, seconds=20)
            values = [one.data["values"]["temperature"]["value"] for one in found if one.name == "readings"]
            assert values == list(range(position + 1, 6))
            assert found[-1].name == "commands"
            assert await again.hear(1, seconds=0.1) == []
            await again.close()

    key = key_of(person("ada"))
    run(listen())


def test_a_row_that_appears_late_is_sent(run, station, monkeypatch):
    """PostgreSQL assigns keys before the commit, so that a lower key may appear after a higher one."""

    async def listen() -> None:
        client = await Client(key).open("?type=readings")
        await client.hear(1)
        model = registry.get("weatherstation").reading_model

        def add(pk: int) -> None:
            row = {"device": station, "timestamp": timezone.now(), "temperature": pk}
            model.objects.create(pk=pk, **row)

        monkeypatch.setattr(feed, "open_writers", lambda tables: {name: {"began"} for name in tables})
        await sync_to_async(add)(102)
        [_one] = await client.hear(1)
        await sync_to_async(add)(101)
        [late] = await client.hear(1)
        assert late.data["values"]["temperature"]["value"] == 101
        await client.close()
        await sync_to_async(add)(100)
        again = await client.open("?type=readings")
        values = [one.data["values"]["temperature"]["value"] for one in await again.hear(1)]
        assert values[0] == 100
        await again.close()

    key = key_of(person("ada"))
    run(listen())


@pytest.mark.parametrize("last", ["x", "AAAA", "%00", "9" * 5000])
def test_an_unknown_place_is_a_reset(run, last):
    async def listen() -> list[Heard]:
        client = await Client(key).open("", last)
        found = await client.hear(1)
        await client.close()
        return found

    key = key_of(person("ada"))
    assert [one.name for one in run(listen())] == ["reset"]


def test_a_place_that_is_too_old_or_too_far_is_a_reset(run, station, monkeypatch):
    """After an hour, or more events than a stream carries."""

    async def listen() -> None:
        client = await Client(key).open()
        await client.hear(1)
        await client.close()
        mark, at, states = cursors.read(client.last_id)
        old = await Client(key).open("", cursors.write(mark, at - feed.OLDEST - 1, states))
        assert [one.name for one in await old.hear(1)] == ["reset"]
        await old.close()
        for number in range(3):
            await sync_to_async(send)(station, {"temperature": number})
        monkeypatch.setattr(feed, "MOST", 2)
        again = await client.open()
        assert [one.name for one in await again.hear(1)] == ["reset"]
        assert await again.hear(1, seconds=0.1) == []
        await again.close()

    key = key_of(person("ada"))
    run(listen())


def test_a_flood_is_a_reset(run, station, monkeypatch):
    """The stream goes on after it."""

    async def listen() -> list[str]:
        client = await Client(key).open("?type=readings")
        await client.hear(1)
        monkeypatch.setattr(sources, "MOST", 3)
        model = registry.get("weatherstation").reading_model
        rows = [model(device=station, timestamp=timezone.now(), temperature=n) for n in range(5)]
        await sync_to_async(model.objects.bulk_create)(rows)
        found = await client.hear(1)
        await sync_to_async(send)(station, {"temperature": 21.5})
        found += await client.hear(1)
        await client.close()
        return [one.name for one in found]

    key = key_of(person("ada"))
    assert run(listen()) == ["reset", "readings"]


def test_a_slow_client_has_bytes_waiting_up_to_a_bound(monkeypatch):
    """Then its stream ends, as for too many events."""
    monkeypatch.setattr(broadcast, "HEAVIEST", 10)
    stream = broadcast.Stream(broadcast.Reader("ada", None, lambda event: True))
    for text in (b"x" * 10, b"y", b"z", b"z"):
        stream.send(text)
    assert [stream.waiting.get_nowait() for _ in range(3)] == [b"x" * 10, b"y", None]
    assert stream.waiting.empty()


def test_a_caller_gets_only_what_it_may_see(run, station, neighbour):
    """By site, by scope of the key, by type and by device."""

    async def listen() -> dict[str, set[str]]:
        clients = {}
        for name, (client, query) in callers.items():
            clients[name] = await client.open(query)
            await client.hear(1)
        for device in (station, neighbour):
            await sync_to_async(send)(device, {"temperature": 21.5})
            await sync_to_async(deny)(f"weatherstation/{device.device_id}")
        await sync_to_async(deny)("stranger")
        found = {}
        heard = await asyncio.gather(*(client.hear(len(expected[name])) for name, client in clients.items()))
        more = await asyncio.gather(*(client.hear(1, seconds=0.1) for client in clients.values()))
        assert not any(more)
        for (name, client), own_events in zip(clients.items(), heard, strict=True):
            found[name] = {
                f"{one.name} {one.data.get('device', one.data.get('principal'))[-3:]}" for one in own_events
            }
            await client.close()
        return found

    ada, north = person("ada"), person("nora", sites=["north"])
    callers = {
        "all": (Client(key_of(ada)), ""),
        "session": (Client(user=ada), ""),
        "site of a user": (Client(key_of(north)), ""),
        "site of a key": (Client(key_of(ada, site="north")), ""),
        "without access": (Client(key_of(ada, ["telemetry:read"])), ""),
        "readings": (Client(key_of(ada)), "?type=readings,weatherstation"),
        "device": (Client(key_of(ada)), "?device=weatherstation/STATION-002"),
        "id": (Client(key_of(ada)), "?type=weatherstation,readings&device=STATION-002"),
        "other": (Client(key_of(ada)), "?type=lwm2m"),
    }
    own = {"readings 001", "status 001"}
    others = {"readings 002", "status 002"}
    denied = {"denials 001", "denials 002", "denials ger"}
    expected = {
        "all": own | others | denied,
        "session": own | others | denied,
        "site of a user": own | {"denials 001"},
        "site of a key": own | {"denials 001"},
        "without access": own | others,
        "readings": {"readings 001", "readings 002"},
        "device": others | {"denials 002"},
        "id": {"readings 002"},
        "other": set(),
    }
    assert run(listen()) == expected


@pytest.mark.parametrize(
    "happen",
    [
        lambda: ApiKey.objects.all().delete(),
        lambda: ApiKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1)),
        lambda: ApiKey.objects.update(scopes=["devices:read"]),
        lambda: ApiKey.objects.update(site="south"),
        lambda: User.objects.update(is_active=False),
        lambda: User.objects.get().groups.clear(),
        lambda: SiteScope.objects.create(user=User.objects.get(), sites=["north"]),
    ],
    ids=["deleted", "expired", "scopes", "site", "inactive", "no-role", "limited"],
)
def test_a_stream_ends_with_its_key(run, happen):
    async def listen() -> bool:
        client = await Client(key).open()
        await client.hear(1)
        await sync_to_async(happen)()
        found = await asyncio.wait_for(anext(client._parts, None), 10)
        await client.close()
        return found is None

    key = key_of(person("ada"))
    assert run(listen())


def test_a_stream_ends_with_its_session(run):
    async def listen() -> bool:
        client = await Client(user=ada).open()
        await client.hear(1)
        await sync_to_async(lambda: User.objects.update(password="!"))()
        found = await asyncio.wait_for(anext(client._parts, None), 10)
        await client.close()
        return found is None

    ada = person("ada")
    assert run(listen())
    assert checks_every <= 2


def test_a_quiet_stream_is_kept_open(run, monkeypatch):
    """A comment shows that it is there, and moves the place of the client on."""

    async def listen() -> Client:
        client = await Client(key).open()
        [_start] = await client.hear(1)
        assert await client.hear(1, seconds=0.3) == []
        assert b"\n: still here\nid: " in b"\n" + client.raw
        await client.close()
        return client

    monkeypatch.setattr(broadcast, "HEARTBEAT", 0.05)
    key = key_of(person("ada"))
    client = run(listen())
    assert cursors.read(client.last_id) is not None
    assert beats_every == 15


def test_streams_are_bounded(run, monkeypatch):
    """For one caller with 429, in a process with 503; both say when to try again."""

    async def listen() -> list[Any]:
        first = await Client(keys[0]).open()
        await first.hear(1)
        refused = [await Client(key).open() for key in keys]
        for one in (*refused, first):
            await one.close()
        again = await Client(keys[0]).open()
        assert (await again.hear(1))[0].name == "start"
        await again.close()
        return [one.response for one in refused]

    monkeypatch.setattr(broadcast, "MAX_OF_ONE", 1)
    monkeypatch.setattr(broadcast, "MAX_STREAMS", 1)
    ada = person("ada")
    keys = [key_of(ada), key_of(ada)]
    answers = run(listen())
    assert [answer.status_code for answer in answers] == [429, 503]
    assert all(int(answer["Retry-After"]) > 0 and answer["Content-Type"] == PROBLEM for answer in answers)


def test_streams_that_are_opened_at_once_are_bounded_too(run, monkeypatch):
    """One that was admitted beside others, and for which there is no place any more, ends and names a time."""

    async def listen() -> list[Client]:
        clients = [await Client(key).open() for _ in range(2)]
        for one in clients:
            await one.hear(1)
        for one in clients:
            await one.close()
        return clients

    monkeypatch.setattr(broadcast, "MAX_OF_ONE", 1)
    key = key_of(person("ada"))
    first, second = run(listen())
    assert first.last_id
    assert second.raw == broadcast.RETRY_LATER
    assert not broadcast._open


def test_clients_that_join_all_the_time_keep_no_event_from_others(run, station, monkeypatch):
    """Each look admits those who waited when it began."""
    since = feed.Feed.since

    def joined_again(self: feed.Feed, place: Any) -> Any:
        broadcast._current.join(broadcast.Stream(reader), place)
        return since(self, place)

    async def listen() -> list[Heard]:
        client = await Client(key).open("?type=readings")
        await client.hear(1)
        broadcast._current.join(broadcast.Stream(reader), broadcast._current.place)
        await sync_to_async(send)(station, {"temperature": 1})
        found = await client.hear(1, seconds=5)
        broadcast._current.end()
        await client.close()
        return found

    monkeypatch.setattr(feed.Feed, "since", joined_again)
    reader = broadcast.Reader("other", None, lambda event: False)
    key = key_of(person("ada"))
    assert [one.name for one in run(listen())] == ["readings"]


def test_a_client_that_does_not_read_is_disconnected(run, station, monkeypatch):
    """Nothing waits without a bound."""

    async def listen() -> int:
        client = await Client(key).open("?type=readings")
        await client.hear(1)
        for number in range(5):
            await sync_to_async(send)(station, {"temperature": number})
        await asyncio.sleep(0.2)
        found = await client.hear(10)
        await client.close()
        return len(found)

    monkeypatch.setattr(broadcast, "MOST_WAITING", 2)
    key = key_of(person("ada"))
    assert run(listen()) == 2


def held_back(monkeypatch: pytest.MonkeyPatch, event: threading.Event) -> list[Any]:
    """Have the feed wait for *event* before it hands out what happened since a place; return a list of its calls."""
    since, calls = feed.Feed.since, []

    def late(self: feed.Feed, place: Any) -> Any:
        calls.append(place)
        event.wait(20)
        return since(self, place)

    monkeypatch.setattr(feed.Feed, "since", late)
    return calls


@pytest.mark.parametrize("going", [0, 1], ids=["first", "second"])
def test_a_client_that_leaves_while_others_join_takes_no_other_with_it(run, station, monkeypatch, going):
    """The one that joined at the same time hears what happens; nothing of the other is left."""

    async def listen() -> list[Heard]:
        before = await Client(key).open("?type=readings")
        await before.hear(1)
        last = before.last_id
        await before.close()
        clients = [await Client(key).open("?type=readings", last) for _ in range(2)]
        hearing = [asyncio.create_task(one.hear(1)) for one in clients]
        while not calls or not all(one.raw for one in clients):
            await asyncio.sleep(0.01)
        assert len(calls) == 1  # The first one gets what happened, and the second one waits for its turn.
        hearing[going].cancel()
        await asyncio.wait([hearing[going]])
        go_on.set()
        await sync_to_async(send)(station, {"temperature": 1})
        found = await hearing[not going]
        current = broadcast._current
        assert current is not None
        assert len(current.streams) == 1
        for one in clients:
            await one.close()
        assert broadcast._current is None
        return found

    monkeypatch.setattr(broadcast, "CHECK_SECONDS", 60)
    go_on = threading.Event()
    calls = held_back(monkeypatch, go_on)
    key = key_of(person("ada"))
    assert [one.name for one in run(listen())] == ["readings"]


def test_a_request_for_the_head_opens_no_stream(run):
    """Its headers are those of the stream."""

    async def ask() -> Any:
        answer = await AsyncClient().head("/api/events/", headers={"Authorization": f"Api-Key {key}"})
        await sync_to_async(connections.close_all)()
        return answer

    key = key_of(person("ada"))
    answer = run(ask())
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/event-stream")
    assert not answer.streaming


def test_a_database_that_is_away_ends_the_streams(run, monkeypatch):
    """The clients connect again, and go on where they were."""

    def fail(*_: object) -> None:
        raise OperationalError("the connection is closed")

    async def listen() -> list[Heard]:
        client = await Client(key).open()
        await client.hear(1)
        monkeypatch.setattr(sources.Commands, "look", fail)
        found = await client.hear(1)
        await client.close()
        return found

    key = key_of(person("ada"))
    with capture_logs() as logs:
        assert run(listen()) == []
    assert [line["error"] for line in logs if line["event"] == "stream.database_away"] == ["OperationalError"]


def test_keys_that_are_texts_have_one_digest_in_all_processes():
    """Python hashes a text differently in each process, and a client may go on at another worker."""
    assert (
        sources._digest([("STATION-001", 7), (5, 9)])
        == sources._digest([(5, 9), ("STATION-001", 7)])
        == 1_643_184_492
    )


def test_odd_requests_are_refused(run, station):
    """With problem details, also of a client that accepts only a stream."""

    async def ask(client: Client, query: str = "") -> tuple[int, str]:
        await client.open(query)
        await client.close()
        return client.response.status_code, client.response["Content-Type"]

    ada, vera = person("ada"), person("vera", roles.VIEWER)
    made = WeatherStationDevice(device_id="STATION-003")
    own = made.generate_credentials()["api_key"]
    made.save()
    key = key_of(ada)
    north = key_of(ada, site="north")
    WeatherStationDevice.objects.filter(pk=made.pk).update(site="south")
    cases = [
        (Client(), "", 401),
        (Client(own), "", 403),
        (Client(key_of(ada, ["devices:read"])), "", 403),
        (Client(key_of(ada, ["telemetry:read"])), "?type=denials", 403),
        (Client(key), "?type=nothing", 400),
        (Client(key), "?typ=readings", 400),
        (Client(key), "?type=%00", 400),
        (Client(key), "?device=weatherstation/STATION-009", 404),
        (Client(key), "?device=STATION-001", 404),
        (Client(north), "?device=weatherstation/STATION-003", 404),
    ]
    answers = [(run(ask(client, query)), status) for client, query, status in cases]
    assert [found for found, _ in answers] == [(status, PROBLEM) for _, status in answers]
    assert run(ask(Client(user=vera)))[0] == 200


def test_many_devices_take_as_many_queries_as_few():
    """They are found by one query for each type."""
    names = [f"S-{number}" for number in range(20)]
    for name in names:
        WeatherStationDevice.objects.create(device_id=name, mqtt_username=name)
    caller, counts = Program(user=person("ada")), []
    for some in (names[:1], names[:2], names):
        with CaptureQueriesContext(connection) as queries:
            answer = caller.get("/api/events/", type="weatherstation", device=",".join(some))
        assert answer.status_code == 200
        counts.append(len(queries))
    assert counts[1] == counts[2]


def test_a_server_without_asgi_answers_at_once(station):
    """With what happened since the last event, since a stream would hold a thread; the client asks again."""

    def ask(query: str, last: str) -> str:
        answer = caller.client.get(f"/api/events/{query}", headers={"Last-Event-ID": last} if last else {})
        assert (answer.status_code, answer["Content-Type"]) == (200, "text/event-stream")
        return str(answer.content.decode())

    def last_of(text: str) -> str:
        return text.rpartition("id: ")[2].split()[0]

    caller = Program(user=person("ada"))
    start = ask("", "")
    assert start.startswith("retry: 5000\n\nid: ")
    assert "event: start" in start
    send(station, {"temperature": 21.5})
    first = ask("?type=readings", last_of(start))
    assert first.count("event: readings") == 1
    assert "event: " not in ask("?type=readings", last_of(first))
    assert "event: reset" in ask("", "x")


def test_a_client_that_accepts_problems_alone_gets_the_stream(station):
    """Generated clients prefer a media type with `json` in it, and the description has only that of problems."""
    caller = Program(user=person("ada"))
    answer = caller.client.get("/api/events/", headers={"Accept": "application/problem+json"})
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/event-stream")
