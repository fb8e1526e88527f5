"""The page at the root: access, content, cost and live updates."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import roles, states
from devicehub.dashboard import chart, devices, display, live, overview
from devicehub.dashboard.selection import Selection, parse
from devicehub.denials import reasons
from devicehub.history import latest, series
from devicehub.kinds.registry import Kind, registry
from devicehub.models import BaseDevice, DeviceStatus, QuarantinedMessage
from devicehub.stream import thread
from rig import denied, hub
from rig.people import person

EVERYBODY = User(is_superuser=True)  # A reader without a limit, who needs no row.
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def kind() -> Kind:
    found = registry.get("weatherstation")
    assert found is not None
    return found


@pytest.fixture
def viewer(db: None) -> User:
    """Return a user who may see the page and do nothing else."""
    return person("viewer", password="looks-around")


@pytest.fixture
def page(client: Client, viewer: User) -> Callable[..., str]:
    """Return a function that returns the page at a query, as the viewer sees it."""
    client.force_login(viewer)

    def get(query: str = "") -> str:
        response = client.get(f"/{query}")
        assert response.status_code == 200
        return response.content.decode()

    return get


def station(kind: Kind, device_id: str, **fields: Any) -> BaseDevice:
    made: BaseDevice = kind.device_model.objects.create(device_id=device_id, **fields)
    return made


def read(kind: Kind, device: BaseDevice, ago: float = 0, **values: Any) -> None:
    kind.reading_model.objects.create(
        device=device, timestamp=timezone.now() - timedelta(seconds=ago), **values
    )


denial = partial(
    denied.denial,
    username="fleet-weatherstationdevice-STATION-007",
    principal="weatherstation/STATION-007",
    topic="things/weatherstation/STATION-003/data",
)


class Elements(HTMLParser):
    """The tags of a page, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def shown_ids(text: str) -> list[str]:
    return [attrs["data-key"] or "" for tag, attrs in Elements(text).found if "data-key" in attrs]


class TestAccess:
    @pytest.mark.django_db
    def test_a_stranger_is_sent_to_the_login(self, client: Client) -> None:
        response = client.get("/?q=a")

        assert response.status_code == 302
        assert response["Location"] == "/login/?next=/%3Fq%3Da"

    @pytest.mark.django_db
    def test_a_stranger_gets_no_stream_and_no_redirect(self, client: Client) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("devicehub.dashboard.views.connections.close_all", lambda: None)
            assert client.get("/stream/").status_code == 403

    def test_signing_in_leads_to_the_page_and_out_again(self, client: Client, viewer: User) -> None:
        response = client.post("/login/", {"username": "viewer", "password": "looks-around"})
        assert response["Location"] == "/"
        assert client.get("/").status_code == 200

        assert client.get("/logout/").status_code == 405
        assert client.post("/logout/")["Location"] == "/login/"
        assert client.get("/").status_code == 302

    def test_a_wrong_password_is_reported_without_an_echo(self, client: Client, viewer: User) -> None:
        response = client.post("/login/", {"username": HOSTILE, "password": "wrong-password"})

        assert response.status_code == 200
        text = response.content.decode()
        assert 'role="alert"' in text
        assert "wrong-password" not in text
        assert "<script>alert" not in text

    def test_a_viewer_without_staff_rights_sees_no_way_to_the_admin(self, page: Callable[..., str]) -> None:
        assert "/admin/" not in page()

    @pytest.mark.parametrize("path", ["/", "/login/"])
    def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(
        self, client: Client, viewer: User, path: str
    ) -> None:
        if path == "/":
            client.force_login(viewer)
        response = client.get(path)

        policy = response["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        for tag, attrs in Elements(response.content.decode()).found:
            assert tag != "style"
            assert tag != "script" or attrs["src"]
            assert "style" not in attrs
            assert not [name for name in attrs if name.startswith("on")]
            assert urlsplit(attrs.get("src") or attrs.get("href") or "").netloc == ""

    def test_the_page_is_only_read(self, client: Client, viewer: User) -> None:
        client.force_login(viewer)

        assert client.post("/").status_code == 405


class TestFleet:
    def test_an_empty_fleet_says_how_to_begin_to_those_who_may(
        self, client: Client, page: Callable[..., str]
    ) -> None:
        assert "No devices yet" in page()
        assert "provision_devices" not in page()

        client.force_login(person("olga", roles.OPERATOR))
        text = client.get("/").content.decode()

        assert "provision_devices weatherstation" in text
        main = text.partition("<main")[2]
        assert 'href="/devices/add/"' in main
        assert 'href="/devices/import/"' in main

    @pytest.mark.django_db
    def test_sites_without_devices_are_named(self, kind: Kind, client: Client) -> None:
        station(kind, "STATION-001", site="north")
        client.force_login(person("mara", roles.OPERATOR, ["south"]))
        text = client.get("/").content.decode()

        assert "No device of your sites" in text
        assert "You see the devices of south. None has this site now." in text
        assert "provision_devices" not in text

    def test_the_numbers_lead_to_what_they_count(self, kind: Kind, page: Callable[..., str]) -> None:
        station(kind, "STATION-001", connected=True)
        found = Elements(page()).found
        links = [attrs["href"] for _, attrs in found if (attrs.get("class") or "").split()[:1] == ["tile"]]
        ids = {attrs.get("id") for _, attrs in found}

        assert links == ["#devices", "?status=connected#devices", "#chart-title", "/denials/"]
        assert {"devices", "chart-title"} <= ids

    def test_each_value_is_the_latest_measured_not_the_latest_stored(
        self, kind: Kind, page: Callable[..., str]
    ) -> None:
        ours = station(kind, "STATION-001", name="North field")
        read(kind, ours, ago=60, temperature=1.5, humidity=61.0)
        read(kind, ours, ago=5, temperature=21.375)
        read(kind, ours, ago=30, temperature=2.5)

        cells = devices.rows(kind, [ours])[0].cells

        assert [(c.text, c.unit) for c in cells] == [("21.38", "°C"), ("61.00", "% RH"), ("–", "")]
        assert "<b>21.38</b>" in page()

    def test_a_value_is_looked_for_in_the_newest_rows_only(self, kind: Kind, viewer: User) -> None:
        """Otherwise a reading that never comes would cost a scan of all rows of a device."""
        ours = station(kind, "STATION-001")
        read(kind, ours, ago=1000, humidity=61.0)
        for ago in range(latest.NEWEST):
            read(kind, ours, ago=ago, temperature=20.0)

        assert devices.rows(kind, [ours])[0].cells[1].text == "–"

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"status": DeviceStatus.ONLINE, "last_seen": timedelta(0)}, "Connected"),
            ({"status": DeviceStatus.ONLINE, "last_seen": timedelta(days=1)}, "Silent"),
            ({"status": DeviceStatus.ERROR}, "Error"),
            ({"status": DeviceStatus.ONLINE, "is_active": False}, "Disabled"),
            ({"status": "of old", "last_seen": timedelta(0)}, "of old"),
            ({"credentials_changed_at": timezone.now()}, "Revoked"),
        ],
    )
    def test_a_row_has_the_state_of_the_whole_product(
        self, kind: Kind, page: Callable[..., str], fields: dict[str, Any], text: str
    ) -> None:
        if "last_seen" in fields:
            fields = {**fields, "last_seen": timezone.now() - fields["last_seen"]}
        station(kind, "STATION-001", **fields)

        (device,) = devices.shown(kind, EVERYBODY)
        assert states.of(kind, device).word == text
        assert {"mqtt_password_hash", "credentials_changed_at"} <= device.get_deferred_fields()
        assert re.search(rf"</svg>{text}</span>", page())

    def test_the_number_of_queries_does_not_depend_on_the_number_of_devices(
        self, kind: Kind, page: Callable[..., str]
    ) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                page()
            return len(captured)

        denial()
        read(kind, station(kind, "STATION-001"), temperature=20.0)
        few = queries()
        for number in range(2, 42):
            read(kind, station(kind, f"STATION-{number:03d}"), temperature=20.0, humidity=50.0)
        denial(topic="elsewhere")

        assert queries() == few

    def test_no_secret_is_even_read(self, kind: Kind, page: Callable[..., str]) -> None:
        station(kind, "STATION-001", mqtt_password_hash="sha256$verysecret", api_key="f" * 64)
        with CaptureQueriesContext(connection) as captured:
            text = page()

        assert "verysecret" not in text
        # The state compares the column in the database.
        compared = """"mqtt_password_hash" = ''"""
        assert not [q for q in captured if "mqtt_password_hash" in q["sql"].replace(compared, "")]

    def test_hostile_text_stays_text(self, kind: Kind, page: Callable[..., str]) -> None:
        ours = station(kind, "STATION-001", name=HOSTILE, status=HOSTILE[:20])
        read(kind, ours, temperature=20.0)
        denial(topic=HOSTILE, username=HOSTILE, principal="", client_id=HOSTILE, action=HOSTILE[:20])
        QuarantinedMessage.objects.create(
            reason=HOSTILE[:30], detail=HOSTILE, topic=HOSTILE, payload=b"", received_at=timezone.now()
        )

        text = page("?q=" + "%3Cscript%3Ealert(1)%3C/script%3E") + page()
        watch = live.Watch(parse({}), EVERYBODY)
        pieces = watch.start()

        for html in (text, *pieces["rows"].values(), pieces["denials"], pieces["quarantine"]):
            found = Elements(html).found
            assert all(attrs.get("src") for tag, attrs in found if tag == "script")
            assert not [attrs for _, attrs in found if "onerror" in attrs]
            assert not [tag for tag, attrs in found if tag == "img" and attrs.get("src") == "x"]

    def test_a_search_finds_ids_and_names(self, kind: Kind, page: Callable[..., str]) -> None:
        station(kind, "STATION-001", name="North field")
        station(kind, "STATION-002", name="Orchard")

        assert shown_ids(page("?q=north")) == ["weatherstation/STATION-001"]
        assert shown_ids(page("?q=ion-002")) == ["weatherstation/STATION-002"]
        assert "No device of this kind matches the filter" in page("?q=nothing")

    def test_a_status_filters(self, kind: Kind, page: Callable[..., str]) -> None:
        station(kind, "STATION-001", status=DeviceStatus.ONLINE)
        station(kind, "STATION-002", status=DeviceStatus.ERROR, connected=True)

        assert shown_ids(page("?status=connected")) == ["weatherstation/STATION-002"]
        assert shown_ids(page("?status=error")) == ["weatherstation/STATION-002"]
        assert len(shown_ids(page("?status=no-such-status"))) == 2

    def test_pages_lead_forth_and_back(self, kind: Kind, page: Callable[..., str]) -> None:
        kind.device_model.objects.bulk_create(
            kind.device_model(device_id=f"STATION-{number:03d}") for number in range(1, 121)
        )

        def visit(query: str) -> tuple[list[str], dict[str, str]]:
            text = page(query)
            ways = {
                str(attrs["rel"]): str(attrs["href"])
                for tag, attrs in Elements(text).found
                if tag == "a" and "rel" in attrs
            }
            return [key.rpartition("-")[2] for key in shown_ids(text)], ways

        first, ways = visit("")
        assert (first[0], first[-1], len(first), set(ways)) == ("001", "050", 50, {"next"})
        second, ways = visit(ways["next"])
        assert (second[0], second[-1], set(ways)) == ("051", "100", {"next", "prev"})
        third, ways_of_third = visit(ways["next"])
        assert (third[0], third[-1], set(ways_of_third)) == ("101", "120", {"prev"})
        assert visit(ways_of_third["prev"])[0] == second
        assert visit(ways["prev"])[0] == first

    @pytest.mark.parametrize(
        "query",
        [
            "?after-weatherstation=zzz",
            "?before-weatherstation=%00",
            "?after-weatherstation=A&before-weatherstation=",
            "?before-weatherstation=A",
            "?q=%00%ff%ed%a0%80",
            "?status=%00",
            "?range=-1&reading=weatherstation",
            "?reading=nobody.nothing",
            "?q=" + "x" * 5000,
            "?after-weatherstation=%F0%9F%98%80" + "x" * 500,
        ],
    )
    def test_parameters_that_nobody_would_write_are_no_error(
        self, kind: Kind, page: Callable[..., str], query: str
    ) -> None:
        station(kind, "STATION-001")

        page(query)
        live.Watch(parse({"q": "\x00", "range": "x", "after-weatherstation": "\x00"}), EVERYBODY).start()

    def test_counting_reads_no_more_than_a_minute_of_readings(self, kind: Kind, viewer: User) -> None:
        ours = station(kind, "STATION-001", connected=True)
        station(kind, "STATION-002")
        for ago in (1, 59, 61, 10_000):
            read(kind, ours, ago=ago, temperature=20.0)
        denial(count=3)
        denial(reason=Reason.NOT_SUPERUSER, count=500)
        denial(topic="of last week", last_at=timezone.now() - timedelta(days=2))

        counts = overview.counts(EVERYBODY)

        assert (counts.devices, counts.connected, counts.readings, counts.denied) == (2, 1, 2, 1)


class TestDenials:
    def test_every_reason_has_a_sentence(self) -> None:
        assert set(reasons.SENTENCES) == set(Reason)
        assert all(text.endswith(".") for text in reasons.SENTENCES.values())

    def test_a_neighbours_topic_is_said_to_be_the_neighbours(self, page: Callable[..., str]) -> None:
        denial(count=41)
        text = page()

        assert "weatherstation/STATION-007" in text
        assert "things/weatherstation/STATION-003/data" in text
        assert "This topic belongs to STATION-003." in text
        assert "×</span>41" in text

    def test_ones_own_topic_is_not_said_to_be_somebody_elses(self) -> None:
        own = Denial(
            principal="weatherstation/STATION-003",
            topic="things/weatherstation/STATION-003/cmd",
            reason=Reason.NO_GRANT,
        )

        assert reasons.sentence(own) == "No rule allows this."

    def test_a_deny_rule_is_named(self) -> None:
        assert reasons.sentence(Denial(reason=Reason.DENY_GRANT, rule="no cmd")) == (
            "The rule “no cmd” forbids this."
        )

    def test_only_the_latest_are_shown_and_no_question_about_superusers(self, viewer: User) -> None:
        now = timezone.now()
        for number in range(30):
            denial(topic=f"t/{number}", last_at=now - timedelta(seconds=number))
        denial(reason=Reason.NOT_SUPERUSER, action="superuser", topic="")

        assert [d.topic for d in overview.denials(EVERYBODY)] == [f"t/{number}" for number in range(20)]

    def test_the_quarantine_counts_a_day(self, page: Callable[..., str]) -> None:
        now = timezone.now()
        for hours in (1, 2, 30):
            QuarantinedMessage.objects.create(
                reason="not_json", topic=f"t/{hours}", payload=b"x", received_at=now - timedelta(hours=hours)
            )

        found = overview.quarantine(EVERYBODY)
        assert (found.count, [m.topic for m in found.latest]) == (2, ["t/1", "t/2"])
        assert "not_json" in page()


class TestChart:
    def load(self, kind: Kind, seconds: int = 900, reading: str = "temperature") -> tuple[chart.Chart, Any]:
        plotted = parse({"reading": f"weatherstation.{reading}"}).plotted
        assert plotted is not None
        made = chart.Chart(plotted, seconds, EVERYBODY)
        return made, made.load(timezone.now())

    def test_few_points_come_as_they_are(self, kind: Kind, viewer: User) -> None:
        ours = station(kind, "STATION-001")
        for ago, value in ((1000, 1.0), (20, 2.0), (10, None), (5, 3.0)):
            read(kind, ours, ago=ago, temperature=value)

        _, loaded = self.load(kind)

        assert (loaded["step"], loaded["unit"]) == (0, "°C")
        assert [(s["device"], s["v"]) for s in loaded["series"]] == [("STATION-001", [2.0, 3.0])]

    def test_many_points_are_thinned_to_buckets_that_keep_the_extremes(
        self, kind: Kind, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(series, "MAX_POINTS", 10)
        ours = station(kind, "STATION-001")
        for ago in range(60):
            read(kind, ours, ago=ago, temperature=float(ago % 2))

        made, loaded = self.load(kind, 86_400)

        (shown,) = loaded["series"]
        assert loaded["step"] == 120
        assert (min(shown["low"]), max(shown["high"])) == (0.0, 1.0)
        assert any(0 < mean < 1 for mean in shown["v"])
        assert len(shown["t"]) <= 2
        tail = chart.Tail(kind)
        read(kind, ours, temperature=9.0)
        (news,) = made.add(tail.look(None, "temperature"), timezone.now())
        assert news["high"][-1] == 9.0
        assert news["t"][-1] % 120 == 60
        assert abs(news["t"][-1] - timezone.now().timestamp()) <= 120

    def test_of_a_large_fleet_those_heard_last_are_shown(self, kind: Kind, viewer: User) -> None:
        for number in range(12):
            read(kind, station(kind, f"STATION-{number:03d}"), ago=number, temperature=20.0)

        _, loaded = self.load(kind)

        assert [s["device"] for s in loaded["series"]] == [f"STATION-{n:03d}" for n in range(8)]

    def test_new_rows_are_returned_once_and_late_ones_too(self, kind: Kind, viewer: User) -> None:
        ours = station(kind, "STATION-001")
        read(kind, ours, temperature=1.0)
        tail = chart.Tail(kind)
        assert tail.look({ours.pk}, "temperature") == []

        read(kind, ours, temperature=2.0)
        read(kind, ours, ago=500, temperature=3.0)
        assert [row[3] for row in tail.look({ours.pk}, "temperature")] == [2.0, 3.0]
        assert [tail.look({ours.pk}, "temperature") for _ in range(5)] == [[]] * 5
        read(kind, station(kind, "STATION-002"), temperature=4.0)
        assert tail.look({ours.pk}, "temperature") == []

    def test_more_rows_than_one_look_returns_come_with_the_next_ones(
        self, kind: Kind, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(chart, "MAX_NEWS", 4)
        ours = station(kind, "STATION-001")
        tail = chart.Tail(kind)
        for number in range(10):
            read(kind, ours, temperature=float(number))

        looks = [[row[3] for row in tail.look(None, "temperature")] for _ in range(5)]

        assert looks == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0], [], []]

    def test_a_device_that_is_new_joins_a_chart_that_has_room(self, kind: Kind, viewer: User) -> None:
        made, loaded = self.load(kind)
        assert loaded["series"] == []
        tail = chart.Tail(kind)
        read(kind, station(kind, "STATION-001"), temperature=20.0)

        assert [s["device"] for s in made.add(tail.look(None, "temperature"), timezone.now())] == [
            "STATION-001"
        ]


class TestLive:
    def test_an_idle_look_costs_no_query_per_device(
        self, kind: Kind, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "SECONDS", 0.0)  # Every look counts anew, also one that follows at once.

        def cost(watch: live.Watch) -> int:
            with CaptureQueriesContext(connection) as captured:
                assert set(watch.look()) <= {"now", "counts"}
            return len(captured)

        def started() -> live.Watch:
            watch = live.Watch(Selection(), EVERYBODY)
            watch.start()
            return watch

        read(kind, station(kind, "STATION-001"), temperature=20.0)
        few = cost(started())
        for number in range(2, 32):
            read(kind, station(kind, f"STATION-{number:03d}"), temperature=20.0)

        assert cost(started()) <= few

    def test_a_look_returns_only_changes(self, kind: Kind, viewer: User) -> None:
        ours, other = station(kind, "STATION-001"), station(kind, "STATION-002")
        read(kind, other, temperature=1.0)
        watch = live.Watch(parse({}), EVERYBODY)
        started = watch.start()
        assert set(started["rows"]) == {"weatherstation/STATION-001", "weatherstation/STATION-002"}

        read(kind, ours, temperature=23.5)
        news = watch.look()
        assert set(news["rows"]) == {"weatherstation/STATION-001"}
        assert "23.50" in news["rows"]["weatherstation/STATION-001"]
        assert [(s["device"], s["v"]) for s in news["points"]] == [("STATION-001", [23.5])]

        other.mark_online()
        denial()
        news = watch.look()
        assert set(news["rows"]) == {"weatherstation/STATION-002"}
        assert "This topic belongs to STATION-003." in news["denials"]
        assert news["denial"].startswith("Denied: weatherstation/STATION-007, publish ")
        assert not {"rows", "points", "denials"} & set(watch.look())

    @pytest.mark.django_db(transaction=True)
    def test_the_first_event_holds_everything_and_the_next_one_comes_a_second_later(
        self, kind: Kind, viewer: User, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "SECONDS", 0.01)
        read(kind, station(kind, "STATION-001"), temperature=21.0)

        async def listen() -> tuple[Any, list[bytes]]:
            client = AsyncClient()
            await client.aforce_login(viewer)
            response: Any = await client.get("/stream/?reading=weatherstation.temperature")
            assert response.status_code == 200
            content: AsyncIterator[bytes] = response.streaming_content
            got = [await anext(content) for _ in range(3)]
            await response._iterator.aclose()
            await sync_to_async(response.close)()
            return response, got

        response, (retry, start, news) = loop.run(listen())

        assert response["Content-Type"] == "text/event-stream"
        assert retry == live.RETRY
        assert start.startswith(b"event: start\ndata: ")
        content = json.loads(start.partition(b"data: ")[2])
        assert content["chart"]["series"][0]["v"] == [21.0]
        assert "weatherstation/STATION-001" in content["rows"]
        assert news.startswith(b"event: news\n")

    @pytest.mark.django_db(transaction=True)
    def test_a_stream_ends_with_its_time_and_leaves_nothing(
        self, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "LIFETIME", 0)

        async def listen() -> list[bytes]:
            return [event async for event in live.events(Selection(), EVERYBODY)]

        assert len(loop.run(listen())) == 2
        assert not live._streams

    @pytest.mark.django_db(transaction=True)
    def test_there_is_an_end_to_the_number_of_streams(
        self, viewer: User, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(live, "MAX_STREAMS", 0)

        async def status() -> int:
            client = AsyncClient()
            await client.aforce_login(viewer)
            page = await client.get("/stream/", headers={"Accept": "text/html,*/*"})
            assert "Close one of them" in page.content.decode()
            return int((await client.get("/stream/")).status_code)

        assert loop.run(status()) == 503

    @pytest.fixture(autouse=True)
    def leave_no_connection(self) -> Iterator[None]:
        """Let the thread of the streams close its connections before the test database is dropped."""
        yield
        thread.executor.submit(lambda: None).result()


class TestDisplay:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0, "just now"),
            (-100, "just now"),
            (3, "3 s ago"),
            (61, "1 min ago"),
            (7300, "2 h ago"),
            (9**6, "6 d ago"),
        ],
    )
    def test_times_are_given_in_words(self, seconds: int, text: str) -> None:
        now = timezone.now()

        assert display.ago(now - timedelta(seconds=seconds), now) == text

    def test_long_values_are_cut(self) -> None:
        assert display.value("x" * 500) == "x" * 59 + "…"
        assert display.value({"a": [1, "ü"]}) == '{"a": [1, "ü"]}'
        assert display.value(b"12345") == "5 bytes"


@pytest.mark.sqlite_first
@pytest.mark.servers
@pytest.mark.django_db(transaction=True)
def test_a_browser_sees_a_new_reading_and_a_denial_without_reloading(
    kind: Kind, viewer: User, client: Client, browser: Any, tmp_path: Path
) -> None:
    ours = station(kind, "STATION-001", name="North <script>alert(1)</script>")
    for ago in range(120, 0, -5):
        read(kind, ours, ago=ago, temperature=20.0)
    client.force_login(viewer)
    problems: list[str] = []
    requested: list[str] = []

    with hub.gunicorn(tmp_path) as url:
        context = browser.new_context(viewport={"width": 375, "height": 800})
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requested.append(request.url))
        page.goto(f"{url}/?reading=weatherstation.temperature")
        page.wait_for_selector("#chart canvas")
        page.wait_for_selector("#live.on")
        row = page.locator("tr[data-key='weatherstation/STATION-001']")
        assert "20.00" in row.inner_text()
        loaded = page.evaluate("performance.timeOrigin")

        read(kind, ours, temperature=31.25)
        row.get_by_text("31.25").wait_for(timeout=10_000)
        page.locator("#legend").get_by_text("31.25").wait_for(timeout=10_000)
        denial(topic="things/weatherstation/<script>alert(1)</script>/data")
        page.locator("#denials").get_by_text("No rule allows this.").wait_for(timeout=10_000)
        assert "Denied: weatherstation/STATION-007" in page.locator("#denial-news").inner_text()

        assert page.evaluate("performance.timeOrigin") == loaded
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        more = "for (let n = 0; n < 20; n++) list.append(list.firstElementChild.cloneNode(true))"
        page.evaluate(f"() => {{ const list = document.querySelector('#denials'); {more} }}")
        blank = "document.documentElement.scrollHeight - document.body.getBoundingClientRect().height"
        assert page.evaluate(blank) <= 1
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        context.close()
    assert problems == []
    assert {urlsplit(address).netloc for address in requested} == {urlsplit(url).netloc}
