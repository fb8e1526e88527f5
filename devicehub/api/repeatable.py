"""`Idempotency-Key`: a request that creates something may be repeated for 24 hours, and creates it once.

A repetition gets the first answer again. An answer with a secret is never kept: its repetition is 409 with the address
of what was made. Only requests that succeeded count; one that was refused may be sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub.api import bodies, callers
from devicehub.api.problems import Problem, invalid
from devicehub.models import RepeatableRequest

HEADER = "Idempotency-Key"
LONGEST = 255  # characters of a key
KEPT = timedelta(hours=24)
MOST = 10_000  # requests of one caller; the oldest ones are forgotten first
AT_ONCE = 100  # expired rows that one request deletes
LARGEST = 64 << 10  # bytes of an answer that is kept; the repetition of a larger one gets its address


class Made(NamedTuple):
    """The outcome of a request: its answer and the address of what it made.

    An answer that *holds_secret* is never kept. *device_key* names the device that it is about, with whose data the
    kept answer is erased.
    """

    status: int
    answer: Any
    location: str
    holds_secret: bool = False
    device_key: str = ""

    def response(self) -> Response:
        """Return the answer, which no cache keeps."""
        headers = {"Cache-Control": "no-store"} | ({"Location": self.location} if self.location else {})
        return Response(self.answer, self.status, headers=headers)


def once(request: Request, make: Callable[[], Made], undigested: Collection[str] = ()) -> Response:
    """Return the answer of *make*, which runs in a transaction; with an Idempotency-Key, once for each key.

    *undigested* are the members of the body that leave no trace: the digest of a password would help to guess it.
    Raise Problem, and what *make* raises.
    """
    key = request.headers.get(HEADER, "")
    if not key:
        with transaction.atomic():
            return make().response()
    if len(key) > LONGEST or not key.isascii() or not key.isprintable():
        raise invalid(HEADER, f"{HEADER} has 1-{LONGEST} printable characters of ASCII.")
    caller, digest = callers.name(request), _digest(key.encode())
    body = request.data
    if undigested and isinstance(body, Mapping):
        body = {name: value for name, value in body.items() if name not in undigested}
    asked = _digest(b"\n".join((str(request.method).encode(), request.path.encode(), bodies.dumps(body))))
    try:
        with transaction.atomic():
            row = _begin(caller, digest, asked)
            made = make()
            kept = None if made.holds_secret or len(bodies.dumps(made.answer)) > LARGEST else made.answer
            row.keep(made.status, made.location, kept and _as_json(kept), made.device_key)
            return made.response()
    except IntegrityError:
        found = RepeatableRequest.objects.filter(caller=caller, key_digest=digest).first()
        if found is None:
            raise
    return _repeated(found, asked)


def _begin(caller: str, digest: str, asked: str) -> RepeatableRequest:
    """Return the row of a first request. Raise IntegrityError for a repetition, which waits for the first one."""
    now = timezone.now()
    rows = RepeatableRequest.objects
    expired = rows.filter(created_at__lt=now - KEPT)
    expired.filter(caller=caller, key_digest=digest).delete()
    # Those that another request deletes now are left to it.
    some = expired.select_for_update(skip_locked=True).values_list("pk", flat=True)[:AT_ONCE]
    rows.filter(pk__in=list(some)).delete()
    beyond = rows.filter(caller=caller).order_by("-pk").values_list("pk", flat=True)[MOST - 1 : MOST].first()
    if beyond is not None:
        rows.filter(caller=caller, pk__lte=beyond).delete()
    return rows.create(caller=caller, key_digest=digest, request_digest=asked, created_at=now)


def _repeated(row: RepeatableRequest, asked: str) -> Response:
    if row.request_digest != asked:
        raise Problem("key-reused")
    if row.answer is None:
        raise Problem("already-made", location=row.location, headers={"Location": row.location})
    return Made(row.status, row.answer, row.location).response()


def _as_json(answer: Any) -> Any:
    return bodies.loads(bodies.dumps(answer))


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
