"""Work over connections of its own: in a thread, or in several at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor

from django.db import connections

# --- Once per change


def in_a_thread(work, *arguments):
    """The result of *work*, done over a connection of its own."""

    def one():
        try:
            return work(*arguments)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(one).result(30)


def side_by_side(*works):
    """Do *works* at the same time, each over a connection of its own; their results."""
    ready = threading.Barrier(len(works))

    def one(work):
        try:
            ready.wait(10)
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as threads:
        return [future.result(60) for future in [threads.submit(one, work) for work in works]]
