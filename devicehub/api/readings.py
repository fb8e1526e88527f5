"""The values of devices: the newest ones, those of a time in pages, and the export of many."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from django.http import Http404, HttpResponse, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import (
    OpenApiExample,
    OpenApiResponse,
    PolymorphicProxySerializer,
    extend_schema_field,
)
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import visibility
from devicehub.api import callers, paging, streaming
from devicehub.api.base import ApiView, DeviceView
from devicehub.api.bodies import JsonRenderer, moment
from devicehub.api.fields import Choice, Moment, Names, Selected
from devicehub.api.operations import documented, refused
from devicehub.api.posting import Posting
from devicehub.api.problems import Problem, invalid
from devicehub.history import buckets, export, latest, pages
from devicehub.history.exact import as_json
from devicehub.history.pages import Range, UnknownName
from devicehub.kinds.identifiers import is_text
from devicehub.kinds.registry import Kind, registry
from devicehub.models import Rollup

RAW = "raw"
MAX_ID = 2**63


LATEST = {"type": "object", "additionalProperties": {"$ref": "#/components/schemas/LatestValue"}}


class LatestQuery(serializers.Serializer):
    """The parameter of the newest values."""

    def get_fields(self) -> Any:
        """Return the fields, with one whose name is that of an attribute of serializers."""
        return {"fields": _names("The readings to return, separated by commas; without it, all.")}


class Latest(DeviceView):
    """The newest values of a device."""

    scopes = {"GET": "telemetry:read"}
    tag = "Readings"
    query = LatestQuery

    @documented(
        operation_id="get_latest",
        summary="Read the newest values",
        responses={200: LATEST, **refused(413, "The values have more than 8 MiB; name fewer in `fields`.")},
        examples=[
            OpenApiExample(
                "weather station",
                value={
                    "temperature": {"value": 21.5, "unit": "Cel", "timestamp": "2026-12-01T06:00:00Z"},
                    "humidity": {"value": 48.0, "unit": "%RH", "timestamp": "2026-12-01T06:00:00Z"},
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request, type: str, device_id: str) -> Response:  # noqa: A002 - the part of the address
        """Return the newest value of each reading by its name, with its unit and the time of its measurement.

        A reading without a value in the newest 20 rows of the device is missing. Of LwM2M endpoints the names are
        paths such as `3303/0/5700`, the first 1,000 without `fields`; values of more than 8 MiB together are refused,
        and `/api/lwm2m/endpoints/{ep}/resources/` has them in pages.
        """
        kind, device = self.device()
        try:
            found = latest.of_device(kind, device.pk, _wanted(kind, self.params["fields"]))
        except latest.TooHeavy as error:
            raise Problem("too-large", f"{error} Name fewer of them in `fields`.") from error
        units = kind.units(device.pk, list(found))
        return Response(
            {
                name: {"value": as_json(value), "unit": units[name], "timestamp": moment(at)}
                for name, (value, at) in found.items()
            }
        )


class ReadingsQuery(Selected):
    """The parameters of the values over a time."""

    interval = Choice(
        choices=[RAW, *Rollup.Period.values],
        default=RAW,
        help_text="Each row, or figures of each hour or day of UTC.",
    )
    order = Choice(choices=["asc", "desc"], default="asc", help_text="The oldest first, or the newest.")

    def get_fields(self) -> Any:
        """Return the fields, with those whose names are words of Python or attributes of serializers."""
        return {
            **super().get_fields(),
            **_range(),
            "fields": _names(
                "The readings to return, separated by commas; LwM2M endpoints need it, with paths."
            ),
        }

    def validate(self, values: Any) -> Any:
        """Return *values*. Raise ValidationError for a range that is empty."""
        return _checked_range(values)


class ReadingSerializer(serializers.Serializer):
    """One row: what a device measured at one time."""

    timestamp = Moment(help_text="The time of measurement.")
    received_at = Moment(allow_null=True)
    values = serializers.DictField(
        child=serializers.JSONField(allow_null=True),
        help_text="By name; a reading that was not measured is null. Bytes are base64, integers keep 64 bits.",
    )


class BucketSerializer(serializers.Serializer):
    """The figures of a reading in one hour or day of UTC."""

    start = Moment()
    name = serializers.CharField()
    min = serializers.FloatField()
    mean = serializers.FloatField()
    max = serializers.FloatField()
    count = serializers.IntegerField(help_text="The number of values.")


@extend_schema_field(
    PolymorphicProxySerializer(
        component_name="ReadingOrBucket",
        serializers=[ReadingSerializer, BucketSerializer],
        resource_type_field_name=None,
        many=True,
    )
)
class _Results(serializers.ListField):
    """Rows, or buckets."""


class ReadingsSerializer(serializers.Serializer):
    """A page of rows, or of buckets with an interval of hour or day."""

    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
    units = serializers.DictField(
        child=serializers.CharField(allow_blank=True), help_text="The units of SenML, by name."
    )
    results = _Results()


class Readings(Posting, DeviceView):
    """The values of a device over a time."""

    scopes = {"GET": "telemetry:read"}
    tag = "Readings"
    query = ReadingsQuery

    @documented(
        operation_id="list_readings",
        summary="List the values of a time",
        responses=ReadingsSerializer,
        examples=[
            OpenApiExample(
                "rows",
                value={
                    "next": None,
                    "previous": None,
                    "units": {"temperature": "Cel"},
                    "results": [
                        {
                            "timestamp": "2026-12-01T06:00:00Z",
                            "received_at": "2026-12-01T06:00:01.250000Z",
                            "values": {"temperature": 21.5},
                        }
                    ],
                },
                response_only=True,
            ),
            OpenApiExample(
                "hours",
                value={
                    "next": None,
                    "previous": None,
                    "units": {"temperature": "Cel"},
                    "results": [
                        {
                            "start": "2026-12-01T06:00:00Z",
                            "name": "temperature",
                            "min": 20.5,
                            "mean": 21.0,
                            "max": 21.5,
                            "count": 60,
                        }
                    ],
                },
                response_only=True,
            ),
        ],
    )
    def get(self, request: Request, type: str, device_id: str) -> Response:  # noqa: A002 - the part of the address
        """Return the rows from the time `from` on and before `to`, or the figures of their hours or days.

        With an interval of hour or day, each bucket that begins before `to` is whole, also the one that contains
        `from`; it has numbers only, and counts each value that is stored by now. A page of heavy values has fewer rows
        than `limit`.
        """
        kind, device = self.device()
        if not pages.is_listed(kind):
            raise Problem("not-found", "Values of this type are not kept by time; see `latest/`.")
        params = self.params
        wanted = _wanted(kind, params["fields"], numbers=params["interval"] != RAW, is_list=True)
        within = Range(params.get("from"), params.get("to"))
        page, results = (
            self._rows(kind, device, wanted, within)
            if params["interval"] == RAW
            else self._buckets(kind, device, wanted, within)
        )
        answer = paging.answer(request, page, results)
        return Response({**answer, "units": kind.units(device.pk, wanted), "results": results})

    def _rows(
        self, kind: Kind, device: Any, wanted: list[str], within: Range
    ) -> tuple[paging.Page, list[Any]]:
        cursor = paging.parse(self.params["cursor"], 2)
        found, more = pages.rows(
            kind,
            device.pk,
            wanted,
            within,
            self.params["limit"],
            behind=None if cursor is None else pages.Place(_time(cursor.values[0]), _id(cursor.values[1])),
            descending=self._is_descending(cursor),
        )
        page = _page(found, more, cursor)
        return page, [
            {
                "timestamp": moment(row.place.timestamp),
                "received_at": None if row.received_at is None else moment(row.received_at),
                "values": {name: as_json(value) for name, value in row.values.items()},
            }
            for row in page.rows
        ]

    def _buckets(
        self, kind: Kind, device: Any, wanted: list[str], within: Range
    ) -> tuple[paging.Page, list[Any]]:
        cursor = paging.parse(self.params["cursor"], 2)
        found, more = buckets.buckets(
            kind,
            device,
            wanted,
            Rollup.Period(self.params["interval"]),
            within,
            self.params["limit"],
            behind=None
            if cursor is None
            else buckets.Place(_time(cursor.values[0]), _name(cursor.values[1])),
            descending=self._is_descending(cursor),
        )
        page = _page(found, more, cursor)
        return page, [
            {
                "start": moment(one.place.start),
                "name": one.place.name,
                "min": one.low,
                "mean": one.mean,
                "max": one.high,
                "count": one.number,
            }
            for one in page.rows
        ]

    def _is_descending(self, cursor: paging.Cursor | None) -> bool:
        is_backward = cursor is not None and cursor.backward
        return (self.params["order"] == "desc") is not is_backward


class ExportQuery(serializers.Serializer):
    """The parameters of an export."""

    type = serializers.CharField(help_text="The type of the devices, such as `weatherstation`.")
    device = serializers.CharField(
        required=False, default="", help_text="The id of one device; without it, all."
    )
    units = serializers.BooleanField(
        required=False,
        default=False,
        help_text="With the units: in the names of the columns, such as `temperature [Cel]`, or as the member `units`.",
    )

    def get_fields(self) -> Any:
        """Return the fields, with those whose names are words of Python."""
        form = Choice(
            choices=list(export.FORMS),
            default="csv",
            help_text="CSV for spreadsheets, which computes no cell, or lines of JSON with exact values.",
        )
        return {**super().get_fields(), **_range(), "as": form}

    def validate(self, values: Any) -> Any:
        """Return *values*. Raise ValidationError for a range that is empty."""
        return _checked_range(values)


class _AsCsv(JsonRenderer):
    """The media type of CSV, for negotiation; a problem is JSON."""

    media_type = "text/csv"
    format = "csv"


class _AsNdjson(JsonRenderer):
    """The media type of lines of JSON, for negotiation; a problem is JSON."""

    media_type = "application/x-ndjson"
    format = "ndjson"


class ReadingsExport(ApiView):
    """The values of all devices of a type."""

    scopes = {"GET": "telemetry:read"}
    tag = "Readings"
    query = ExportQuery
    renderer_classes: ClassVar = (JsonRenderer, _AsCsv, _AsNdjson)

    @documented(
        operation_id="export_readings",
        summary="Export the values of many devices",
        responses={
            (200, "text/csv"): OpenApiResponse(OpenApiTypes.STR, "A head, and a line for each row."),
            (200, "application/x-ndjson"): OpenApiResponse(OpenApiTypes.STR, "A JSON object in each line."),
            **refused(503, "Too many exports run; `Retry-After` says when to try again."),
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Return all rows of the devices that you may see, as a stream in the order of their times.

        The columns of CSV are `device_id`, `timestamp`, `received_at` and the readings of the type, or `name` and
        `value` for LwM2M endpoints. The lines of JSON have the members `device_id`, `timestamp`, `received_at` and
        `values`. The units are those of the type, and stand in the export with `units=true`; those of LwM2M endpoints
        differ by device, and stand in their `latest/`. If the connection ends before the last part, the export is not
        complete.
        """
        kind = self._kind()
        self.require(visibility.VIEW, kind.device_model)
        devices = visibility.devices(kind, request.user)
        device = self._device(devices)
        if self.params["units"] and kind.narrow is not None:
            raise invalid("units", f"Leave it out: those of {kind.slug} are in `latest/` of each device.")
        form = self.params["as"]
        headers = {
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{kind.slug}-readings.{form}"',
            "X-Accel-Buffering": "no",
        }
        if request.method == "HEAD":
            return HttpResponse(headers=headers, content_type=export.FORMS[form])
        within = Range(self.params.get("from"), self.params.get("to"))
        try:
            source = export.Export(
                kind,
                devices,
                form,
                within,
                device,
                caller=callers.name(request),
                units=self.params["units"],
            )
        except export.TooManyOfOne as error:
            text = f"You have {export.MOST_OF_ONE} exports running here; wait for one."
            raise Problem("too-many-requests", text, headers={"Retry-After": "30"}) from error
        except export.TooMany as error:
            text = "Too many exports run; wait for one."
            raise Problem("unavailable", text, headers={"Retry-After": "30"}) from error
        return StreamingHttpResponse(
            streaming.content(request._request, source), headers=headers, content_type=export.FORMS[form]
        )

    def _kind(self) -> Kind:
        slug = self.params["type"]
        kind = registry.get(slug)
        if kind is None:
            known = ", ".join(one.slug for one in visibility.kinds_of(self.request.user)) or "none"
            raise invalid("type", f"There is no type {slug[:100]} for you; there are {known}.")
        if not pages.is_listed(kind):
            raise invalid("type", f"Values of {slug} are not kept by time.")
        return kind

    def _device(self, devices: Any) -> int | None:
        """Return the primary key of the device that is named, or None. Raise Http404 for one that is not visible."""
        device_id = self.params["device"]
        if not device_id:
            return None
        found: int | None = devices.filter(device_id=device_id).values_list("pk", flat=True).first()
        if found is None:
            raise Http404
        return found


def _names(text: str) -> Names:
    return Names(required=False, default=list, help_text=text)


def _range() -> dict[str, serializers.Field]:
    return {
        "from": Moment(required=False, help_text="The first time."),
        "to": Moment(required=False, help_text="The time before which values end."),
    }


def _checked_range(values: Any) -> Any:
    since, until = values.get("from"), values.get("to")
    if since is not None and until is not None and since >= until:
        raise serializers.ValidationError({"to": "Choose a time after `from`."})
    return values


def _wanted(kind: Kind, given: list[str], *, numbers: bool = False, is_list: bool = False) -> list[str]:
    """Return the names of the values to return. Raise Problem `invalid`."""
    for name in given:
        if len(name) > 100 or not is_text(name):
            raise invalid("fields", "A name has 1-100 characters.")
        if kind.reading_model is None and name.startswith("/"):
            raise invalid("fields", f"Leave out the / in front: {name[1:]}.")
    if not is_list and not (given and kind.reading_model is not None):
        return given
    try:
        return pages.names(kind, given, numbers=numbers)
    except UnknownName as error:
        raise invalid("fields", str(error)) from error


def _page(found: list[Any], more: bool, cursor: paging.Cursor | None) -> paging.Page:
    """Return *found* as a page; *more* rows follow in the direction of *cursor*."""
    rows = [*found, None] if more and found else found
    return paging.cut(rows, cursor, len(found), lambda row: tuple(row.place))


def _time(value: Any) -> datetime:
    """Return the time in a cursor. Raise Problem `invalid-cursor`."""
    try:
        given = datetime.fromisoformat(value)
        found = None if given.tzinfo is None else given.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        found = None
    if found is None:
        raise Problem("invalid-cursor")
    return found


def _id(value: Any) -> int:
    if isinstance(value, int) and abs(value) < MAX_ID:
        return value
    raise Problem("invalid-cursor")


def _name(value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    raise Problem("invalid-cursor")
