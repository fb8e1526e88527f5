"""Every case of the contracts, through both entrances, with the accounts in cases.json."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db import connections

from authsvc.conf import options
from authsvc.core import passwords, tokens
from authsvc.core.tokens import Key
from authsvc.freshness import reader
from authsvc.models import Account, Broker
from fleet.models import WeatherStationDevice
from rig import emqx_rules
from rig.entrances import both_entrances
from rig.seeds import DOCUMENT, body_of
from rig.servers import free_port

CASES = DOCUMENT["cases"]


@pytest.fixture(scope="module")
def world(module_database: Any) -> Iterator[str]:
    """Create the accounts of the document, and return the token of a broker."""
    with module_database.unblock():
        for account in DOCUMENT["world"]["accounts"]:
            name, hashed = account["name"], passwords.hash_generated(account["secret"])
            active = account["state"] == "active"
            if account.get("superuser"):
                Account.objects.create(
                    username=name,
                    password_hash=hashed,
                    is_superuser=True,
                    is_active=active,
                    client_ids=account["client_ids"],
                )
            else:
                WeatherStationDevice.objects.create(
                    device_id=name, mqtt_username=name, mqtt_password_hash=hashed, is_active=active
                )
        broker = Broker(name="contracts")
        token = broker.issue_token()
        broker.save()
        yield token


@pytest.fixture
def database_down(loop: asyncio.Runner) -> Iterator[Callable[[], None]]:
    """Return a function that makes the database unreachable for the rest of the test."""
    config = connections["default"].settings_dict
    kept = dict(config)
    pulled = []

    def pull_the_plug() -> None:
        pulled.append(True)
        loop.run(reader.close())
        if connections["default"].vendor == "sqlite":
            config["NAME"] = str(Path(str(kept["NAME"])).parent / "gone.sqlite3")
        else:
            config["PORT"] = free_port()

    yield pull_the_plug
    if pulled:
        config.update(kept)
        # One that was opened meanwhile is to the other file, which would be found empty at the end of the module.
        connections["default"].close()
        loop.run(reader.close())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
@both_entrances
def test_case(
    case: dict[str, Any],
    entrance: str,
    world: str,
    send: Callable[..., httpx.Response],
    database_down: Callable[[], None],
    django_db_blocker: Any,
) -> None:
    """*why* in the document explains each case."""
    with django_db_blocker.unblock():
        if "service fault" in case["scenario"]:
            database_down()
        reply = send(
            entrance,
            case["method"],
            _filled(case["endpoint"], world),
            headers=_headers(case, world),
            content=body_of(case["body"]),
        )

    _expect(case["expect"], reply, case["why"])


def test_every_case_of_the_document_is_run() -> None:
    assert len(CASES) == len(DOCUMENT["cases"]) == 304


def _filled(text: str, token: str) -> str:
    basic = base64.b64encode(f"broker:{token}".encode()).decode()
    filled = text.replace("{{caller_secret}}", token).replace("{{caller_basic}}", basic)
    return re.sub(r"\{\{(jwt[a-z-]*):([^}]+)\}\}", lambda match: _token(match[1], match[2]), filled)


def _token(kind: str, username: str) -> str:
    """Return a token as the document describes it, with the version of an unchanged account."""
    if kind == "jwt-algnone":
        parts = ({"alg": "none", "kid": "default"}, {"sub": username, "iat": 0, "exp": 2**40, "ver": 0})
        encoded = (
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts
        )
        return ".".join((*encoded, ""))
    keys = options().jwt_keys
    if kind == "jwt-badsig":
        keys = (Key("default", "HS256", "x" * 32, "x" * 32),)
    began = time.time() - 7200 if kind == "jwt-expired" else None
    return tokens.issue(username, 0, keys, 3600, now=began)


def _headers(case: dict[str, Any], token: str) -> dict[str, str]:
    headers = {name: _filled(value, token) for name, value in (case["headers"] or {}).items()}
    if case["content_type"] is not None:
        headers["content-type"] = case["content_type"]
    return headers


def _expect(expect: dict[str, Any], reply: httpx.Response, why: str) -> None:
    """Check each key of the document's `expect`; an unknown one fails the test."""
    for key, wanted in expect.items():
        assert _CHECKS[key](reply, wanted), f"{key}: {why}; got {reply.status_code} {reply.text[:300]}"


def _acl_agrees(reply: httpx.Response, wanted: dict[str, list[list[str]]]) -> bool:
    acl = reply.json()["acl"]
    return all(emqx_rules.allows(acl, *pair) for pair in wanted["allow"]) and not any(
        emqx_rules.allows(acl, *pair) for pair in wanted["deny"]
    )


_CHECKS: dict[str, Callable[[httpx.Response, Any], bool]] = {
    "status": lambda r, w: r.status_code in (w if isinstance(w, list) else [w]),
    "json": lambda r, w: w.items() <= r.json().items(),
    "json_any_of": lambda r, w: any(option.items() <= r.json().items() for option in w),
    "json_not": lambda r, w: not (w.items() & r.json().items()),
    "json_absent_or_not_null": lambda r, w: all(r.json().get(key, 0) is not None for key in w),
    "json_example": lambda _r, _w: True,  # An illustration, not a requirement.
    "acl_semantics": _acl_agrees,
    "body_equals": lambda r, w: r.text == w,
    "body_not_equals": lambda r, w: r.text != w,
    "body_starts_with": lambda r, w: r.text.startswith(w),
    "body_contains": lambda r, w: w in r.text,
    "body_in": lambda r, w: r.text in w,
    "content_type": lambda r, w: r.headers["content-type"].startswith(w),
    "no_redirect": lambda r, w: not w or not 300 <= r.status_code < 400,
    "header_absent": lambda r, w: all(name.partition(":")[0] not in r.headers for name in w),
    "broker_decision": lambda _r, _w: True,  # The resulting decision of the broker.
}
