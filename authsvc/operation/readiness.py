"""Whether this process can answer from what is true now, and if not, why: for operators and their probes."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import structlog

from authsvc import logs, policy
from authsvc.conf import limits
from authsvc.dialects.base import Reply
from authsvc.freshness import changes, read_cache
from authsvc.freshness.reader import DatabaseAway
from authsvc.logins import verifier

log = structlog.get_logger(__name__)


async def alive() -> Reply:
    """The process answers; nothing else is touched."""
    return Reply(200, b'{"status":"alive"}')


async def report() -> Reply:
    """200 when the database can be read, 503 when not; either way JSON that says how things stand.

    *notes* are what makes answers slower and none of them wrong.
    """
    reasons = await _reasons()
    notes = [note] if (note := changes.reason()) else []
    body: dict[str, Any] = {
        "status": "not ready" if reasons else "ready",
        "reasons": reasons,
        "notes": notes,
        "stale_answers": read_cache.counts.stale,
        "slow_verifications": verifier.waiting(),
    }
    return Reply(503 if reasons else 200, json.dumps(body).encode())


async def _reasons() -> list[str]:
    try:
        changes.stamp()  # which notices that the file of SQLite is gone
        revision, _whole, _generation = await policy.state()
    except (DatabaseAway, sqlite3.OperationalError) as error:
        if "no such table" in str(error):
            return ["The tables are missing; run manage.py migrate."]
        seconds = limits().stale_seconds
        from_memory = isinstance(error, DatabaseAway) and seconds > 0
        kept = f" Who was read within {seconds} s is answered from memory." if from_memory else ""
        return [f"The database does not answer.{kept}"]
    except Exception:
        logs.error(log, "ready.failed")
        return ["The tables cannot be read; run manage.py migrate."]
    return [] if revision is not None else ["The policy revision is missing; run manage.py migrate."]
