"""`GET /api/events/`: readings, states, commands and denials as they happen, as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import connections, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from authsvc.models import Denial
from devicehub import visibility
from devicehub.api import callers
from devicehub.api.base import ApiView
from devicehub.api.bodies import JsonRenderer
from devicehub.api.fields import Names
from devicehub.api.operations import documented
from devicehub.api.problems import Problem, invalid
from devicehub.kinds.registry import registry
from devicehub.models import ApiKey, DeviceCommand
from devicehub.stream import broadcast, cursors
from devicehub.stream.broadcast import Reader
from devicehub.stream.cursors import Place
from devicehub.stream.events import COMMANDS, DENIALS, NAMES, READINGS, STATUS, Event
from devicehub.stream.logins import KeyLogin, Login
from devicehub.stream.sources import COMMAND_TIMES, DENIAL_COLUMNS

MEDIA_TYPE = "text/event-stream"
NO_STORE = {"Cache-Control": "no-store"}
BUSY = {"Retry-After": "30"}


class EventStreamRenderer(JsonRenderer):
    """The media type of a stream, for negotiation. A problem in its place is JSON."""

    media_type = MEDIA_TYPE
    format = "event-stream"


class EventParams(serializers.Serializer):
    """The events to send."""

    type = Names(
        required=False,
        default=list,
        help_text=f"Types of events ({', '.join(NAMES)}) and types of devices, separated by commas; without it, all.",
    )
    device = Names(
        required=False,
        default=list,
        help_text="Devices, such as `weatherstation/STATION-001`, separated by commas; without it, all.",
    )


class Opening(NamedTuple):
    """A stream that may be opened: for whom, and from where."""

    reader: Reader
    place: Place | None


class Limits(NamedTuple):
    """The rights of a caller in a stream, which ends when they change."""

    reach: visibility.Reach
    commands: bool
    denials: bool


def _sent(name: str, /, **members: Any) -> dict[str, Any]:
    """Return the schema of one event, whose data is JSON with *members*."""
    content = {"type": "object", "properties": members}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    properties = {"id": TEXT, "event": {"type": "string", "enum": [name]}, "data": data}
    return {"type": "object", "properties": properties, "required": ["event", "data"]}


TEXT = {"type": "string"}
TIME = {"type": ["string", "null"], "format": "date-time"}
DEVICE = {"device": TEXT, "type": TEXT, "device_id": TEXT}
VALUES = {
    "type": "object",
    "additionalProperties": {"type": "object", "properties": {"value": {}, "unit": TEXT}},
}
SENT = {
    "type": "object",
    "description": "One event; `data` is JSON.",
    "anyOf": [
        _sent("start"),
        _sent("reset"),
        _sent(READINGS, **DEVICE, timestamp=TIME, received_at=TIME, values=VALUES),
        _sent(
            STATUS,
            **DEVICE,
            status=TEXT,
            connected={"type": "boolean"},
            connected_changed_at=TIME,
            last_seen=TIME,
        ),
        _sent(
            COMMANDS,
            device=TEXT,
            id={"type": "string", "format": "uuid"},
            **dict.fromkeys(("name", "state", "error"), TEXT),
            **dict.fromkeys(("deadline", *COMMAND_TIMES), TIME),
        ),
        _sent(
            DENIALS,
            id={"type": "integer"},
            principal=TEXT,
            **dict.fromkeys(DENIAL_COLUMNS, TEXT) | {"count": {"type": "integer"}},
            first_at=TIME,
            last_at=TIME,
        ),
    ],
}


class Events(ApiView):
    """The stream of events."""

    scopes = {"GET": "telemetry:read"}
    tag = "Events"
    query = EventParams
    renderer_classes = (EventStreamRenderer,)

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return the view: all checks run in a thread, and the stream itself in the event loop."""
        check = super().as_view(**initkwargs)

        async def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            response: Any = await sync_to_async(check)(request, *args, **kwargs)
            opening: Opening | None = getattr(response, "opening", None)
            if opening is None:
                return response
            if request.method == "HEAD":
                return HttpResponse(content_type=MEDIA_TYPE, headers=NO_STORE)
            if not isinstance(request, ASGIRequest):  # A stream would hold a thread.
                text = await sync_to_async(broadcast.once)(opening.reader, opening.place)
                return HttpResponse(text, content_type=MEDIA_TYPE, headers=NO_STORE)
            # The connections of this request would stay open as long as the stream.
            await sync_to_async(connections.close_all)()
            return StreamingHttpResponse(
                broadcast.events(opening.reader, opening.place),
                content_type=MEDIA_TYPE,
                headers={**NO_STORE, "X-Accel-Buffering": "no"},
            )

        view.cls = cls  # type: ignore[attr-defined] # For the description of the API.
        view.initkwargs = initkwargs  # type: ignore[attr-defined]
        view.csrf_exempt = True  # type: ignore[attr-defined] # It only reads.
        view.login_required = False  # type: ignore[attr-defined]
        return transaction.non_atomic_requests(
            view
        )  # Django refuses others in a project with ATOMIC_REQUESTS.

    @documented(
        operation_id="stream_events",
        summary="Follow events as they happen",
        parameters=[
            OpenApiParameter(
                "Last-Event-ID",
                str,
                OpenApiParameter.HEADER,
                description="The `id` of the last event that arrived. The stream goes on after it.",
            )
        ],
        responses={(200, MEDIA_TYPE): SENT},
    )
    def get(self, request: Request) -> Response:
        """Send server-sent events, each with the JSON of one thing that happened, about once a second.

        - `readings`: a row of values. `device`, its `type` and `device_id`, `timestamp` (of the measurement),
          `received_at`, and `values`: the value and the unit of each reading by name. A value of LwM2M that is not a
          number is null.
        - `status`: a device that connected, was lost, or sent its status, as it is now. `device`, `type`, `device_id`,
          `status`, `connected`, `connected_changed_at`, `last_seen`.
        - `commands`: a command after a step. `device`, `id`, `name`, `state`, `error`, `deadline`, `queued_at`,
          `sent_at`, `acknowledged_at`, `answered_at`, `ended_at`; a time is null before its step.
        - `denials`: a refusal that happened once more. `id`, `principal`, `username`, `client_id`, `action`, `topic`,
          `reason`, `rule`, `dialect`, `broker`, `address`, `count`, `first_at`, `last_at`. A key also needs the
          scope `access:read`; without it they are left out, or refused if `type` names them.
        - `start`: a stream begins here. `reset`: events are missing before it, since more than 10,000 happened at
          once, or 8 MiB of JSON and bytes in readings, or since `Last-Event-ID` is unknown, older than an hour, or
          older than so much: read again what you keep.

        The `id` of each event is opaque. Send the last one as `Last-Event-ID` when you connect again, as browsers do
        by themselves: nothing is lost, and only events of the last minute, or since the oldest open transaction
        began, may come twice. A change is sent however late its transaction commits, unless 10,000 others were added
        meanwhile. A connection, step of a command or denial may be missing that is written more than a minute after
        it happened, as after a failure of the database.

        A comment is sent every 15 seconds without an event. The stream ends with the key or session, and when the
        rights of its user change: connect again. A server process holds 100 streams, and 10 of one caller. A server
        without ASGI answers at once with what happened since `Last-Event-ID`, and ends.
        """
        user: Any = request.user
        key = request.auth if isinstance(request.auth, ApiKey) else None
        limits = _limits(user)
        names, slugs = self._types(limits, key)
        wants = _filter(limits, names, slugs, self._devices(slugs))
        name = callers.name(request)
        if broadcast.is_full_for(name):
            text = f"You have {broadcast.MAX_OF_ONE} streams open here; close one first."
            raise Problem("too-many-requests", text, headers=BUSY)
        if broadcast.is_full():
            raise Problem("unavailable", "Too many streams are open.", headers=BUSY)
        login = Login(request._request, user, _limits) if key is None else KeyLogin(key, user, _limits)
        response = Response()
        response.opening = Opening(Reader(name, login, wants), self._place())
        return response

    def _types(self, limits: Limits, key: ApiKey | None) -> tuple[set[str], set[str]]:
        """Return the types of events and of devices that are wanted and allowed. Raise Problem."""
        given = set(self.params["type"])
        names, slugs = given & set(NAMES), {kind.slug for kind in registry} & given
        unknown = given - names - slugs
        if unknown:
            text = f"There is no type {min(unknown)[:100]}; use {', '.join(NAMES)}, or a type of devices."
            raise invalid("type", text)
        refused = set()
        if not limits.commands:
            refused.add(COMMANDS)
        if not limits.denials or (key is not None and "access:read" not in key.scopes):
            refused.add(DENIALS)
        if names & refused:
            text = f"This needs the permission to view {min(names & refused)}"
            raise Problem("not-allowed", f"{text}, and for denials a key with the scope access:read.")
        return (names or set(NAMES)) - refused, slugs

    def _devices(self, slugs: Collection[str]) -> set[str]:
        """Return the keys of the devices that are wanted; empty for all. Raise Http404."""
        slug = next(iter(slugs)) if len(slugs) == 1 else ""
        wanted = {f"{slug}/{text}" if slug and "/" not in text else text for text in self.params["device"]}
        if wanted - visibility.seen(wanted, self.request.user):
            raise Http404
        return wanted

    def _place(self) -> Place | None:
        """Return the place after the last event that the caller has; None without one."""
        text = self.request._request.headers.get("Last-Event-ID", "")
        if not text:
            return None
        return cursors.read(text) or Place(0, 0, ())  # An unknown one is too old.


def _limits(user: Any) -> Limits:
    may = visibility.may
    return Limits(
        visibility.reach(user),
        may(user, visibility.VIEW, DeviceCommand),
        may(user, visibility.VIEW, Denial),
    )


def _filter(
    limits: Limits, names: Collection[str], slugs: Collection[str], keys: Collection[str]
) -> Callable[[Event], bool]:
    reach = limits.reach

    def wants(event: Event) -> bool:
        if event.name not in names or (keys and event.key not in keys):
            return False
        return (not slugs or event.slug in slugs) and reach.sees(event.slug, event.site)

    return wants
