"""Readiness of this process to answer from current data, with reasons, for operators and their probes."""

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
    """Return a 200 without any check."""
    return Reply(200, b'{"status":"alive"}')


async def report() -> Reply:
    """Return a 200 if the database can be read, otherwise a 503, with details in JSON.

    *notes* name causes of slow but correct answers.
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
        changes.stamp()  # Raises if the file of SQLite is missing.
        revision, _whole, _generation = await policy.state()
    except (DatabaseAway, sqlite3.OperationalError) as error:
        if "no such table" in str(error):
            return ["The tables are missing; run manage.py migrate."]
        seconds = limits().stale_seconds
        from_memory = isinstance(error, DatabaseAway) and seconds > 0
        kept = f" Clients read within {seconds} s are answered from the cache." if from_memory else ""
        return [f"The database does not answer.{kept}"]
    except Exception:
        logs.error(log, "ready.failed")
        return ["The tables cannot be read; run manage.py migrate."]
    return [] if revision is not None else ["The policy revision is missing; run manage.py migrate."]
