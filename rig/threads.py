"""Functions that run over database connections of their own: in a thread, or in several at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.db import connections

# --- Once per change


def in_a_thread(work, *arguments):
    """Run *work* in a thread, over a connection of its own, and return its result."""

    def one():
        try:
            return work(*arguments)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(one).result(30)


@contextmanager
def meanwhile(work):
    """Run *work* in a thread, over a connection of its own, and yield its future; wait for it at the end."""

    def one():
        try:
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(one)


def side_by_side(*works):
    """Run *works* at the same time, each over a connection of its own, and return their results."""
    ready = threading.Barrier(len(works))

    def one(work):
        try:
            ready.wait(10)
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as threads:
        return [future.result(60) for future in [threads.submit(one, work) for work in works]]
