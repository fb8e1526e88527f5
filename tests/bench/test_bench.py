"""The benches run and report their figures, which are not judged here, because machines differ."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.urls import URLResolver, get_resolver, resolve

from bench import api, auth, changes, figures, ingest, keeping, load, lwm2m, publisher, storm, subjects
from bench.__main__ import arguments, main
from bench.api_addresses import ADDRESSES
from rig import placement, servers
from rig.serving import VENDORS, CannotMeasure, databases, hub

pytestmark = pytest.mark.sqlite_only

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(needs_real: Callable[[servers.MissingServer], None]) -> Callable[..., Any]:
    """Return a function that runs `script/bench ... --database sqlite --json` without its set-up."""
    try:
        servers.wrk()
        servers._program("mosquitto", package="mosquitto")
    except servers.MissingServer as missing:
        needs_real(missing)

    def run(*given: str) -> Any:
        command = [sys.executable, "-m", "bench", *given, "--database", "sqlite", "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
        assert done.returncode in (0, 1), done.stderr
        report = json.loads(done.stdout)
        assert done.returncode == (0 if report["met"] else 1)
        return report

    return run


def figures_of(module: Any, report: dict[str, Any]) -> list[str]:
    """Return the lines of the section that *module* writes about *report*."""
    return figures.section(module.TITLE, "script/bench", report, module.markdown(report)).splitlines()


@pytest.mark.servers
@pytest.mark.long
def test_auth_reports_ours_beside_the_bare_application(bench, capsys):
    report = bench("auth", "--devices", "20", "--connections", "1", "--seconds", "1", "--rounds", "1")

    assert [(row["question"], row["database"], row["devices"]) for row in report["rows"]] == [
        ("acl", "bare", None),
        ("acl", "sqlite", 20),
        ("acl, cold", "sqlite", 20),
        ("login", "bare", None),
        ("login", "sqlite", 20),
    ]
    for row in report["rows"]:
        assert 0 < row["median_us"] <= row["p99_us"]
        assert min(row["per_second"], row["median_ratio"], row["rate_ratio"]) > 0
    [worker] = report["memory"]
    assert worker["rss_mib"] > worker["pss_mib"] > 10
    assert report["databases"][0].startswith("SQLite 3")
    assert "gunicorn" in report["server"]
    assert report["cores"]
    assert len(report["targets"]) == 2  # those of rate and growth need more connections and devices

    auth.show(report)

    assert "Target, median at 1 connection" in capsys.readouterr().out
    written = figures_of(auth, report)
    assert sum(line.startswith(("| acl", "| login")) for line in written) == len(report["rows"])
    assert any(line.startswith("| sqlite | 20 | ") for line in written)  # its memory


@pytest.mark.servers
@pytest.mark.long
def test_storm_reports_first_and_second_logins_of_imported_devices(bench, capsys):
    report = bench("storm", "--devices", "30", "--imported", "4", "--rounds", "1")

    assert [(row["storm"], row["questions"]) for row in report["rows"]] == [
        ("bare", 30),
        ("generated", 30),
        ("imported, first", 4),
        ("imported, again", 4),
        ("generated, 4", 4),
    ]
    for row in report["rows"]:
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] < row["seconds"] * 1_000 + 1
        assert row["refused"] == 0
    assert report["rows"][2]["seconds"] > report["rows"][3]["seconds"]
    assert len(report["targets"]) == 2

    storm.show(report)

    assert "Target, 99 % of the logins" in capsys.readouterr().out
    assert sum(line.startswith("| sqlite | ") for line in figures_of(storm, report)) == len(report["rows"])


@pytest.mark.servers
def test_changes_reports_how_soon_a_device_is_refused(bench, capsys):
    report = bench("changes", "--devices", "5")

    assert [(row["database"], row["changes"]) for row in report["rows"]] == [("sqlite", 5)]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in report["rows"])
    assert len(report["targets"]) == 2

    changes.show(report)

    assert "all in force within 1000 ms" in capsys.readouterr().out
    assert any(line.startswith("| sqlite | 5 | ") for line in figures_of(changes, report))


@pytest.mark.servers
@pytest.mark.long
def test_ingest_reports_workers_beside_a_bare_subscriber(bench, capsys):
    report = bench("ingest", "--devices", "7", "--messages", "200", "--rounds", "2")

    assert [row["subject"] for row in report["rows"]] == ["bare", "sqlite"]
    for row in report["rows"]:
        assert min(row["per_second"], row["rate_ratio"], row["peak_mib"]) > 0
        assert (row["sent"], row["stored"], row["lost"], row["duplicated"]) == (400, 400, 0, 0)
    assert report["databases"][0].startswith("SQLite 3")
    assert "paho-mqtt" in report["client"]
    assert len(report["targets"]) == 2

    ingest.show(report)

    assert "Target, nothing lost, nothing stored twice: met" in capsys.readouterr().out
    assert sum(line.startswith(("| bare |", "| sqlite |")) for line in figures_of(ingest, report)) == 2


@pytest.mark.servers
@pytest.mark.long
def test_ingest_compares_the_large_database_with_the_small_one(bench, capsys):
    report = bench(
        *(
            "ingest",
            "--devices",
            "3,7",
            "--fleet",
            "50",
            "--stored",
            "200",
            "--messages",
            "100",
            "--rounds",
            "1",
        )
    )

    assert [(row["subject"], row["publishing"]) for row in report["rows"]] == [
        (subject, publishing) for publishing in (3, 7) for subject in ("bare", "sqlite", "sqlite, large")
    ]
    assert [row["growth"] is not None for row in report["rows"]] == [False, False, True] * 2
    assert {(row["sent"], row["stored"]) for row in report["rows"]} == {(100, 100)}
    [filled] = report["filled"]
    assert (filled["subject"], filled["devices"], filled["stored"]) == ("sqlite, large", 50, 200)
    assert min(filled["seconds"], filled["mib"]) > 0

    ingest.show(report)

    assert "sqlite, large: 50 devices, 200 readings and messages, filled in" in capsys.readouterr().out
    assert any(line.startswith("| sqlite, large | 50 | 200 | ") for line in figures_of(ingest, report))


LAYOUT = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'index' ORDER BY name",
    "postgresql": "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint UNION ALL"
    " SELECT indexname, indexdef FROM pg_indexes ORDER BY 1, 2",
}


@pytest.mark.servers
@pytest.mark.long
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_filled_database_is_as_if_all_had_been_ingested(vendor, tmp_path, needs_real):
    """Indexes and keys are those of the migrations, and each reading has its message of the same device."""
    try:
        with databases(vendor, tmp_path) as create:
            empty, full = create("empty"), create("full")
            hub(vendor, empty, count=2, with_passwords=1)
            hub(vendor, full, count=7, with_passwords=2, stored=300)
            with subjects.queries(vendor, empty) as query_empty, subjects.queries(vendor, full) as query:
                assert query(LAYOUT[vendor]) == query_empty(LAYOUT[vendor])
                [found] = query(
                    "SELECT count(*), count(DISTINCT device.device_id), count(DISTINCT message.digest)"
                    " FROM fleet_weatherstationreading AS reading"
                    " JOIN fleet_weatherstationmessage AS message ON message.id = reading.id"
                    "  AND message.device_id = reading.device_id AND message.received_at = reading.timestamp"
                    " JOIN fleet_weatherstationdevice AS device ON device.id = reading.device_id"
                    "  AND message.topic = 'things/weatherstation/' || device.device_id || '/data'"
                )
    except servers.MissingServer as missing:
        needs_real(missing)

    assert tuple(found) == (300, 7, 300)


def test_a_growth_is_that_of_neighbouring_rounds():
    """A machine that is slow for a while slows both down."""

    def rounds(*rates: float) -> list[ingest.Round]:
        return [ingest.Round(100, 100, 0, 0, 100 / rate, 0) for rate in rates]

    results = {("sqlite", 7): rounds(100, 10, 50), ("sqlite, large", 7): rounds(80, 8, 50)}

    assert ingest._growth(results, "sqlite, large", 7) == 1.25
    assert ingest._growth(results, "sqlite", 7) is None


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--fleet", "100"], "--fleet 100 is less than the 200 devices that publish (--devices)"),
        (["--stored", "50000000000"], "needs 50008 GB of disk in"),
    ],
)
def test_a_large_database_that_cannot_be_is_refused_in_one_line(capsys, given, why):
    assert main(**vars(arguments(["ingest", "--database", "sqlite", *given]))) == 2
    assert capsys.readouterr().err.startswith(f"script/bench ingest: {why}")


def test_payloads_can_be_computed_again_and_no_two_are_equal():
    """A message is counted by its bytes, which the bench computes again for the look-up."""
    first, later = publisher.payloads(1_700_000_000.5, 500), publisher.payloads(1_700_000_060.5, 500)

    assert publisher.payloads(1_700_000_000.5, 500) == first
    assert len({*first, *later}) == 1_000
    for form in publisher.FORMS:
        again = [publisher.payloads(1_700_000_000.5, 50, form) for _ in range(2)]
        assert again[0] == again[1]
        assert len(set(again[0])) == 50


def test_the_clock_of_a_round_starts_before_its_first_message():
    """This holds also if the broker accepts one connection later than the others."""
    accepted, published, served = [], [], []

    async def serve(reader, writer):
        served.append(asyncio.current_task())
        await reader.readexactly(23)  # CONNECT
        await asyncio.sleep(0.2 * len(accepted))
        accepted.append(time.time())
        writer.write(b"\x20\x02\x00\x00")
        head = await reader.readexactly(2)
        published.append(time.time())
        await reader.readexactly(head[1])
        writer.write(b"\x40\x02\x00\x01")
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def run():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            report = await publisher.publish(port, 2, ["a", "b"], 1_700_000_000.5, 2)
            await asyncio.gather(*served)
            return report

    report = asyncio.run(run())

    assert max(accepted) <= report["began"] <= min(published) <= report["ended"]


def test_ingest_distinguishes_lost_from_stored_twice():
    payloads = publisher.payloads(1_700_000_000.5, 3)
    digests = [(hashlib.sha256(payload).hexdigest(),) for payload in payloads]

    def outcome(rows, refused=0):
        answers = {"digest": rows, "count(*)": [(len(rows),)], "quarantine": [(refused,)]}

        def query(statement):
            place = "quarantine" if "quarantine" in statement else statement.split()[1]
            return [(0,)] if "max(id)" in statement else answers[place]

        hub = SimpleNamespace(vendor="sqlite", generated=[])
        worker = subjects.Worker(hub, subjects.Size("", 0), 1, Path(os.devnull), query)
        worker.expect(len(payloads))
        return worker.outcome(payloads)

    assert outcome(digests) == (3, 0, 0)
    assert outcome(digests[:1] + digests[:2]) == (2, 1, 1)
    with pytest.raises(CannotMeasure, match="1 refused"):
        outcome(digests[:2], refused=1)
    with pytest.raises(CannotMeasure, match="1 messages"):
        outcome([("of somebody else",)])


def test_a_storm_sends_again_to_a_busy_server_and_counts_it(monkeypatch):
    monkeypatch.setattr(load, "RETRY_SECONDS", 0.01)

    [report] = report_of([(503, "{}"), (200, '{"ok":true,"error":""}')] * 3, questions=3)

    assert (report["questions"], report["refused"]) == (3, 3)


@pytest.mark.parametrize("reply", [(403, '{"ok":false}'), (200, '{"ok":false}'), (500, "")])
def test_a_storm_takes_no_refusal_for_an_answer(reply):
    with pytest.raises(ConnectionError, match=f"answered with {reply[0]}"):
        report_of([reply], questions=1)


def report_of(replies: list[tuple[int, str]], questions: int) -> list[dict[str, Any]]:
    """Return the report of load.send_all() about a server that sends *replies*, one after the other."""
    remaining = iter(replies)
    served = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.current_task())
        while await reader.readline():
            status, body = next(remaining)
            writer.write(f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()
        await writer.wait_closed()

    async def run() -> list[dict[str, Any]]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                return await load.send_all(port, 2, [[f"question {number}\n" for number in range(questions)]])
            finally:
                await asyncio.gather(*served)

    return asyncio.run(run())


@pytest.mark.long
@pytest.mark.servers
def test_keeping_reports_every_step_and_the_stall_of_a_writer(bench, capsys):
    report = bench("keeping", "--rows", "3000")

    steps = {step["step"]: step for step in report["steps"]}
    assert list(steps) == [
        "roll up",
        "chart of a year, rows",
        "chart of a year, rollups",
        "the writer alone",
        "prune a month, batches",
        "erase a device",
    ]
    assert 200 < steps["prune a month, batches"]["rows"] < 300
    assert steps["erase a device"]["rows"] > 200
    assert all(step["seconds"] > 0 for step in report["steps"])
    assert report["ratios"][0]["ratio"] == "chart of a year: rows / rollups"

    keeping.show(report)

    assert "Target, no writer waits longer than" in capsys.readouterr().out
    assert any(line.startswith("| sqlite | erase a device | ") for line in figures_of(keeping, report))


@pytest.mark.long
@pytest.mark.servers
def test_lwm2m_reports_notifications_beside_typed_ingest(bench, capsys):
    report = bench("lwm2m", "--devices", "5", "--fleet", "20", "--messages", "100", "--rounds", "1")

    rows = {row["subject"]: row for row in report["rows"]}
    assert list(rows) == ["sqlite, typed", "sqlite, senml+cbor", "sqlite, senml+json"]
    assert rows["sqlite, typed"]["ratio"] == 1
    assert all((row["sent"], row["lost"], row["duplicated"]) == (100, 0, 0) for row in rows.values())
    [latest] = report["latest"]
    assert (latest["endpoints"], latest["values"], latest["queries"]) == (20, 12, 1)
    assert {row["codec"] for row in report["codecs"]} > {"senml+json", "tlv", "lwm2m+cbor", "link format"}

    lwm2m.show(report)

    assert "Target, at least 50,000 records per second of each codec" in capsys.readouterr().out
    assert any(line.startswith("| sqlite, senml+cbor | ") for line in figures_of(lwm2m, report))


@pytest.mark.servers
@pytest.mark.long
def test_api_reports_answers_exports_and_posts_beside_a_bare_view(bench, capsys):
    given = ("--devices", "20", "--stored", "200", "--requests", "2", "--messages", "100", "--rounds", "1")
    report = bench("api", *given)

    answers = {row["address"]: row for row in report["answers"]}
    assert answers["bare view"]["times"] == 1
    assert answers["readings, 1,000 rows"]["rows"] == 1_000
    assert answers["readings, hours"]["rows"] > 0
    assert [(row["form"], row["rows"]) for row in report["exports"]] == [("csv", 10_300), ("ndjson", 10_300)]
    posts = {row["what"]: row for row in report["posts"]}
    assert list(posts) == [
        "MQTT, one reading in each message",
        "posts of 100 samples",
        "posts to the bare view",
        "posts of one sample",
    ]
    assert posts["posts of one sample"]["reference"] == "bare view"

    api.show(report)

    assert "Target, an export of at least 50,000 rows per second" in capsys.readouterr().out
    assert any(line.startswith("| sqlite | newest values | ") for line in figures_of(api, report))


# The description and its page, and streams: an export is measured by its rows, and events have no end.
NOT_MEASURED = {"api/schema/", "api/docs/", "api/readings/export/", "api/events/"}


def routes(patterns: list[Any], before: str = "") -> Iterator[str]:
    """Yield the routes that a GET reads."""
    for one in patterns:
        route = f"{before}{one.pattern}"
        if isinstance(one, URLResolver):
            yield from routes(one.url_patterns, route)
        elif hasattr(getattr(one.callback, "cls", None), "get"):
            yield route


def test_every_route_of_the_api_is_measured():
    """A new one needs its line in bench/api_addresses.py."""
    a_uuid = "7f1d7c0e-8f0a-4b5e-9a55-3f1f4b7f0a11"
    paths = [one.path.partition("?")[0].replace("{command}", a_uuid) for one in ADDRESSES]
    measured = {resolve(re.sub(r"\{\w+\}", "1", path)).route for path in paths}

    found = {route for route in routes(get_resolver().url_patterns) if route.startswith("api/")}

    assert found - measured - NOT_MEASURED == set()


@pytest.mark.skipif(not placement.is_fixed(), reason="needs Linux and two cores")
def test_workers_have_a_core_of_their_own_or_share_one_with_all():
    idle = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(idle, stdin=subprocess.PIPE) as worker,
        subprocess.Popen(idle, stdin=subprocess.PIPE) as database,
    ):
        placement.place({worker.pid}, together=False)
        apart = os.sched_getaffinity(worker.pid), os.sched_getaffinity(database.pid)
        placement.place({worker.pid}, together=True)
        together = os.sched_getaffinity(worker.pid), os.sched_getaffinity(database.pid)
        for process in (worker, database):
            process.kill()

    assert [len(cores) for cores in (*apart, *together)] == [1, 1, 1, 1]
    assert apart[0] != apart[1]
    assert together[0] == together[1] == apart[0]


def test_figures_of_wrk_are_read_in_any_unit():
    printed = "  50%  105.00us\n  75%    0.90ms\n  99%    1.20s\nRequests/sec:  8431.7"

    assert auth.read(printed) == auth.Measured(median=105, p99=1_200_000, rate=8431.7)
    with pytest.raises(CannotMeasure, match="unexpected form"):
        auth.read("no figures")


def test_figures_are_compared_with_the_bare_application_and_the_fewest_devices():
    def measured(median: float, rate: float) -> list[auth.Measured]:
        return [auth.Measured(median * slow, median * 2 * slow, rate / slow) for slow in (1, 9, 1)]

    results = {
        (("bare", None, "login"), 16): measured(100, 10_000),
        (("sqlite", 20, "login"), 16): measured(150, 8_000),
        (("sqlite", 90, "login"), 16): measured(300, 5_000),
    }

    bare, few, many = auth._rows(results)

    assert (bare["median_ratio"], few["median_ratio"], many["median_ratio"]) == (1, 1.5, 3)
    assert (bare["rate_ratio"], few["rate_ratio"], many["rate_ratio"]) == (1, 0.8, 0.5)
    assert (bare["growth"], few["growth"], many["growth"]) == (None, None, 2)
    assert [target["met"] for target in auth._targets([bare, few, many], [])] == [False, False]
    assert [target["met"] for target in auth._targets([bare, few], [{"rss_mib": 80}])] == [True, True]


def test_a_bench_that_cannot_run_says_why_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(servers, "SEARCH_PATH", "/nowhere")

    assert main(**vars(arguments(["auth"]))) == 2
    assert capsys.readouterr().err == "script/bench auth: wrk is not installed: apt-get install wrk\n"
