"""Metrics since this process started, for Prometheus: counted with each answer, rendered when they are scraped.

Answers add to plain numbers, and so do other apps that serve requests, with counter(). If AUTHSVC_METRICS_DIR names a
folder, each process writes its numbers there once a second, and a scraped process reports those of all processes,
including ended ones.
"""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from authsvc import background
from authsvc.core.access import Verdict
from authsvc.dialects.base import Reply
from authsvc.freshness import changes, read_cache
from authsvc.logins import verifier
from authsvc.operation import denials, last_logins, notes

BOUNDS = (50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5)
FOLDER = "AUTHSVC_METRICS_DIR"  # The environment variable with the path of the folder.
FAULT = "fault"  # The verdict, and the reason, of a question without a decision.

Key = tuple[str, str, str, str]  # Dialect, question, verdict, reason.


class Tally:
    """The number of answers, their total seconds, and their numbers in the intervals between BOUNDS."""

    __slots__ = ("count", "intervals", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.intervals = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float) -> None:
        """Count one answer that took *seconds*."""
        self.count += 1
        self.seconds += seconds
        self.intervals[bisect_left(BOUNDS, seconds)] += 1


_questions: dict[Key, Tally] = {}


def tally(dialect: str, question: str, verdict: Verdict | None) -> Tally:
    """Return the tally of questions with this result; without a verdict it is a fault."""
    if verdict is None:
        key = (dialect, question, FAULT, FAULT)
    else:
        key = (dialect, question, "allow" if verdict.allowed else "deny", _reason(verdict))
    found = _questions.get(key)
    if found is None:
        found = _questions[key] = Tally()
        if FOLDER in os.environ:
            background.wake()  # A server without lifespan has not done it.
    return found


class Counter:
    """A counter of another app among these metrics. Its labels have fixed sets of values, which no client chooses."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)
        self._numbers: Counts[tuple[str, ...]] = Counts()
        self._lock = threading.Lock()

    def add(self, *values: str) -> None:
        """Count one event with these values of the labels."""
        with self._lock:
            self._numbers[values] += 1
        if FOLDER in os.environ:
            background.wake()

    def numbers(self) -> list[list[Any]]:
        """Return the values of the labels and the number of each series."""
        with self._lock:
            return [[list(values), number] for values, number in self._numbers.items()]


_counters: dict[str, Counter] = {}


def counter(name: str, text: str, labels: Sequence[str]) -> Counter:
    """Add a counter to the metrics and return it; call this once, when its app is loaded."""
    return _counters.setdefault(name, Counter(name, text, labels))


def _reason(verdict: Verdict) -> str:
    """Return the reason of the first denied topic, or of the first topic if none is denied."""
    for decision in verdict.decisions:
        if not decision.allowed:
            return decision.reason
    return verdict.decisions[0].reason


async def report() -> Reply:
    """Return all metrics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector([*_of_others(), _numbers()]))
    return Reply(200, generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8")


def publish() -> None:
    """Write the numbers of this process for the others, if AUTHSVC_METRICS_DIR is set."""
    folder = os.environ.get(FOLDER)
    if folder:
        path = Path(folder) / f"{os.getpid()}.json"
        path.with_suffix(".new").write_text(json.dumps(_numbers()))
        path.with_suffix(".new").replace(path)


def _numbers() -> dict[str, Any]:
    return {
        "bounds": list(BOUNDS),
        "questions": [[*key, t.count, t.seconds, t.intervals] for key, t in list(_questions.items())],
        "memory": vars(read_cache.counts),
        "dropped": denials.dropped,
        "notes_dropped": notes.dropped + last_logins.dropped,
        "overloaded": verifier.overloaded,
        "verified": verifier.verified,
        "waiting": verifier.waiting(),
        "deaf": bool(changes.reason()),
        "counters": {name: one.numbers() for name, one in _counters.items()},
    }


def _of_others() -> Iterator[dict[str, Any]]:
    """Yield the numbers of the other processes; those of an ended one without its gauges."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    for path in sorted(Path(folder).glob("*.json")):
        if not path.stem.isdecimal() or (pid := int(path.stem)) == os.getpid():
            continue
        try:
            numbers: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:  # Removed since it was listed.
            continue
        if numbers["bounds"] != list(BOUNDS):  # Written by another version.
            continue
        yield numbers if _runs(pid) else numbers | {"waiting": 0, "deaf": False}


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _Collector(Collector):
    def __init__(self, processes: list[dict[str, Any]]) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        yield from self._of_questions()
        memory = CounterMetricFamily(
            "devicehub_auth_memory",
            "Caches of database reads: hits, reads, stale answers, spoiled reads.",
            labels=["event"],
        )
        for event in ("hits", "reads", "stale", "spoiled"):
            memory.add_metric([event], self._sum(lambda numbers, event=event: numbers["memory"][event]))
        yield memory
        yield CounterMetricFamily(
            "devicehub_auth_denials_dropped",
            "Denials beyond the bound, which were not counted.",
            self._sum("dropped"),
        )
        yield CounterMetricFamily(
            "devicehub_auth_notes_dropped",
            "Notes of logins and of the use of brokers beyond the bounds, which were not written.",
            self._sum("notes_dropped"),
        )
        yield CounterMetricFamily(
            "devicehub_auth_overloaded",
            "Slow verifications refused, beyond the budget.",
            self._sum("overloaded"),
        )
        yield CounterMetricFamily(
            "devicehub_auth_slow_verifications", "Slow hashes that were computed.", self._sum("verified")
        )
        yield GaugeMetricFamily(
            "devicehub_auth_slow_verifications_waiting",
            "Slow verifications that run or wait.",
            self._sum("waiting"),
        )
        yield GaugeMetricFamily(
            "devicehub_auth_deaf_processes",
            "Processes without notifications of changes, which read for each question.",
            self._sum("deaf"),
        )
        for one in _counters.values():
            yield self._of_counter(one)

    def _of_counter(self, one: Counter) -> Metric:
        found: Counts[tuple[str, ...]] = Counts()
        for numbers in self._processes:
            # An ended process of an earlier version may have left numbers without this one.
            for values, number in numbers.get("counters", {}).get(one.name, ()):
                found[tuple(values)] += number
        family = CounterMetricFamily(one.name, one.text, labels=one.labels)
        for series, number in sorted(found.items()):
            family.add_metric(series, number)
        return family

    def _of_questions(self) -> Iterator[Metric]:
        counts: dict[Key, int] = {}
        times: dict[tuple[str, str], tuple[float, list[int]]] = {}
        for dialect, question, verdict, reason, number, seconds, intervals in self._all_questions():
            key = (dialect, question, verdict, reason)
            counts[key] = counts.get(key, 0) + number
            total, before = times.get((dialect, question), (0.0, [0] * len(intervals)))
            added = [one + other for one, other in zip(before, intervals, strict=True)]
            times[dialect, question] = (total + seconds, added)
        questions = CounterMetricFamily(
            "devicehub_auth_questions",
            "Questions of brokers, by verdict and reason.",
            labels=["dialect", "question", "verdict", "reason"],
        )
        for key, number in sorted(counts.items()):
            questions.add_metric(key, number)
        yield questions
        latency = HistogramMetricFamily(
            "devicehub_auth_seconds", "Time from a question to its answer.", labels=["dialect", "question"]
        )
        for labels, (total, intervals) in sorted(times.items()):
            latency.add_metric(labels, list(_buckets(intervals)), total)
        yield latency

    def _all_questions(self) -> Iterator[list[Any]]:
        for numbers in self._processes:
            yield from numbers["questions"]

    def _sum(self, key: Any) -> float:
        # An ended process of an earlier version may have left numbers without this one.
        read = key if callable(key) else (lambda numbers: numbers.get(key, 0))
        return float(sum(read(numbers) for numbers in self._processes))


def _buckets(intervals: list[int]) -> Iterator[tuple[str, float]]:
    """Yield cumulative buckets, as Prometheus expects."""
    total = 0
    for bound, number in zip([*map(str, BOUNDS), "+Inf"], intervals, strict=True):
        total += number
        yield bound, total


background.every_second(publish, first=True)
