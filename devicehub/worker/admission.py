"""The service's own decision about an ingest worker that a broker refuses.

A broker also refuses a client while it cannot reach the service. The worker uses the same database, so it can
distinguish this from a wrong password or a missing grant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from django.db import connections

from authsvc import chain, logs, policy
from authsvc.core import authority
from authsvc.core.access import Action, Client, LoginQuestion, TopicQuestion, Verdict
from authsvc.freshness import reader
from authsvc.operation.reasons import SENTENCES
from devicehub.mqtt import BrokerAddress

log = structlog.get_logger(__name__)


def refusal(address: BrokerAddress, client_id: str, filters: Sequence[str]) -> str:
    """Return a sentence about why the service refuses the login or one of *filters*; empty if it allows all.

    It is also empty while the database does not answer: then nothing is certain.
    """
    try:
        return asyncio.run(_refusal(address, client_id, filters))
    except Exception:
        logs.error(log, "ingest.admission_unknown")
        return ""
    finally:
        connections.close_all()  # Those of this thread.


async def _refusal(address: BrokerAddress, client_id: str, filters: Sequence[str]) -> str:
    client = Client(address.username, client_id)
    try:
        rules, principals = (await policy.current()).rules, chain.configured()
        login = LoginQuestion(client, address.password)
        verdict = await authority.decide(login, rules, principals)
        if verdict.allowed and filters:
            verdict = await authority.decide(
                TopicQuestion(client, Action.SUBSCRIBE, list(filters)), rules, principals
            )
    finally:
        await reader.close()
    return "" if verdict.allowed else _sentence(verdict, address.username, client_id)


def _sentence(verdict: Verdict, username: str, client_id: str) -> str:
    reason = next(decision.reason for decision in verdict.decisions if not decision.allowed)
    return f"for the account {username!r} as {client_id!r} it says: {SENTENCES[reason]}"
