"""`/api/types/`: the declared kinds of devices, with their readings, commands and states."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import visibility
from devicehub.api import index, paging
from devicehub.api.base import ApiView
from devicehub.api.fields import Selectable, Selected, SelectedOne
from devicehub.api.operations import documented
from devicehub.kinds import topics
from devicehub.kinds.declare import Command, Reading, StateField, reading_types, state_types
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import FROM_DEVICE, MessageType

DEVICE_ID = "{device_id}"
# The types of parameters of commands in the words of JSON.
IN_JSON = {
    int: "integer", float: "number", str: "string", bool: "boolean", dict: "object", list: "array",
}  # fmt: skip
READING_TYPES = [each.value for each in reading_types]
STATE_TYPES = [each.value for each in state_types]
PARAMETER_TYPES = list(IN_JSON.values())
FROM, TO = "from_device", "to_device"
DIRECTIONS = [FROM, TO]


@extend_schema_field({"type": "number"})
class Bound(serializers.Field):
    """One end of a range: a number, or null."""

    def to_representation(self, value: Any) -> Any:
        """Return *value* as it is."""
        return value


@extend_schema_field({})
class Anything(serializers.Field):
    """Any value of JSON."""

    def to_representation(self, value: Any) -> Any:
        """Return *value* as it is."""
        return value


class DeclaredReadingSerializer(serializers.Serializer):
    """One value that devices of a type measure."""

    name = serializers.CharField()
    verbose_name = serializers.CharField(help_text="The name for people.")
    type = serializers.ChoiceField(choices=READING_TYPES)
    unit = serializers.CharField(help_text="A unit of SenML (RFC 8428), or an empty text.")
    minimum = Bound(allow_null=True, help_text="The lowest value that is stored.")
    maximum = Bound(allow_null=True, help_text="The highest value that is stored.")
    required = serializers.BooleanField(help_text="Whether each message must have it.")
    lwm2m = serializers.CharField(
        allow_null=True, help_text="The path of the LwM2M resource that it is, such as `3303/0/5700`."
    )


class ParameterSerializer(serializers.Serializer):
    """One parameter of a command. All parameters are required."""

    name = serializers.CharField()
    type = serializers.ChoiceField(choices=PARAMETER_TYPES)


class CommandTypeSerializer(serializers.Serializer):
    """One command that devices of a type understand."""

    name = serializers.CharField()
    description = serializers.CharField()
    parameters = ParameterSerializer(many=True)
    qos = serializers.IntegerField(min_value=0, max_value=2)


class ChoiceSerializer(serializers.Serializer):
    """One value of a state field, with its name for people."""

    value = Anything()
    label = serializers.CharField()


class StateFieldSerializer(serializers.Serializer):
    """One lasting property that devices of a type report with their status."""

    name = serializers.CharField()
    verbose_name = serializers.CharField(help_text="The name for people.")
    type = serializers.ChoiceField(choices=STATE_TYPES)
    default = Anything()
    choices = ChoiceSerializer(many=True, allow_null=True, help_text="The only values; null for any.")


class TopicSerializer(serializers.Serializer):
    """One topic of a device. `{device_id}` stands for its id."""

    message_type = serializers.ChoiceField(choices=[each.value for each in MessageType])
    topic = serializers.CharField()
    direction = serializers.ChoiceField(choices=DIRECTIONS)


class TypeSerializer(Selectable):
    """A type of devices, as its class declares it."""

    type = serializers.CharField(help_text="The name in addresses, keys and topics.")
    name = serializers.CharField(help_text="The name for people.")
    readings = DeclaredReadingSerializer(many=True)
    commands = CommandTypeSerializer(many=True)
    state_fields = StateFieldSerializer(many=True)
    topic_template = serializers.CharField()
    topics = TopicSerializer(many=True)
    client_id = serializers.ChoiceField(
        choices=["bound", "any"],
        help_text="`bound`: a device connects with a client id of its own; `any`: with any one.",
    )
    heartbeat_interval = serializers.FloatField(
        help_text="Seconds between two messages of a device; after 2.5 times as many it is silent."
    )


class Types(ApiView):
    """The types whose devices the caller may see."""

    scopes = {"GET": "devices:read"}
    tag = "Types"
    query = Selected
    pagination_class = paging.CursorPages

    @documented(
        operation_id="list_types", summary="List the types of devices", responses=TypeSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        """Return the types in the order of their names, with their readings, commands and state fields."""
        slugs = sorted(kind.slug for kind in visibility.kinds_of(request.user))
        at, limit = paging.parse(self.params["cursor"], 1), self.params["limit"]
        if at is not None:
            after = str(at.values[0])
            slugs = [slug for slug in slugs if (slug < after if at.backward else slug > after)]
        if at is not None and at.backward:
            slugs.reverse()
        page = paging.cut(slugs[: limit + 1], at, limit, lambda slug: (slug,))
        kinds = {kind.slug: kind for kind in visibility.kinds_of(request.user)}
        rows = [described(kinds[slug]) for slug in page.rows]
        shown = TypeSerializer(rows, many=True, context=self.context())
        return Response(paging.answer(request, page, shown.data))


class OneType(ApiView):
    """One type."""

    scopes = {"GET": "devices:read"}
    tag = "Types"
    query = SelectedOne

    @documented(operation_id="get_type", summary="Read a type of devices", responses=TypeSerializer)
    def get(self, request: Request, type: str) -> Response:  # noqa: A002 - the name in the address
        """Return the type with its readings, commands, state fields and topics."""
        kind = next((kind for kind in visibility.kinds_of(request.user) if kind.slug == type), None)
        if kind is None:
            raise Http404
        return Response(TypeSerializer(described(kind), context=self.context()).data)


def described(kind: Kind) -> dict[str, Any]:
    """Return the declaration of *kind* as TypeSerializer shows it."""
    return {
        "type": kind.slug,
        "name": kind.name,
        "readings": [_reading(name, reading) for name, reading in kind.readings.items()],
        "commands": [_command(name, command) for name, command in kind.commands.items()],
        "state_fields": [_state_field(name, state) for name, state in kind.state_fields.items()],
        "topic_template": kind.topic_template,
        "topics": topics_of(kind, DEVICE_ID),
        "client_id": kind.client_id,
        "heartbeat_interval": kind.heartbeat_interval,
    }


def topics_of(kind: Kind, device_id: str) -> list[dict[str, str]]:
    """Return the topics of a device of *kind* as TopicSerializer shows them."""
    return [
        {
            "message_type": message_type.value,
            "topic": topics.build(kind, device_id, message_type),
            "direction": FROM if message_type in FROM_DEVICE else TO,
        }
        for message_type in MessageType
    ]


def _reading(name: str, reading: Reading) -> dict[str, Any]:
    low, high = reading.range or (None, None)
    return {
        "name": name,
        "verbose_name": _words(name, reading.verbose_name),
        "type": reading.type.value,
        "unit": reading.unit,
        "minimum": low,
        "maximum": high,
        "required": reading.required,
        "lwm2m": None if reading.lwm2m is None else str(reading.lwm2m),
    }


def _command(name: str, command: Command) -> dict[str, Any]:
    parameters = [{"name": each, "type": IN_JSON[kind]} for each, kind in command.payload.items()]
    return {
        "name": name,
        "description": command.description,
        "parameters": parameters,
        "qos": command.qos,
    }


def _state_field(name: str, state: StateField) -> dict[str, Any]:
    return {
        "name": name,
        "verbose_name": _words(name, state.verbose_name),
        "type": state.type.value,
        "default": state.default,
        "choices": None if state.choices is None else [_choice(choice) for choice in state.choices],
    }


def _choice(choice: Any) -> dict[str, Any]:
    value, label = choice if isinstance(choice, list | tuple) else (choice, choice)
    return {"value": value, "label": str(label)}


def _words(name: str, verbose: str | None) -> str:
    return str(verbose or name.replace("_", " "))


index.show("types", "api_types")
