"""`/api/devices/{type}/{device_id}/commands/`: the commands of a device."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import commands, visibility
from devicehub.api import repeatable
from devicehub.api.addresses import address
from devicehub.api.base import DeviceView, ListView
from devicehub.api.callers import DeviceCaller
from devicehub.api.fields import Closed, Duration, Moment, Selectable, SelectedOne
from devicehub.api.filters import ChoiceFilter, TextFilter
from devicehub.api.operations import IDEMPOTENCY_KEY, documented, refused
from devicehub.api.problems import Problem, invalid
from devicehub.api.repeatable import Made
from devicehub.commands import description
from devicehub.kinds.declare import InvalidCommand
from devicehub.models import CommandState, DeviceCommand


class CommandSerializer(Selectable):
    """A command: its parameters, its progress and its answer."""

    id = serializers.UUIDField()
    device = serializers.CharField(source="device_key", help_text="Such as `weatherstation/STATION-001`.")
    name = serializers.CharField()
    payload = serializers.JSONField(help_text="The parameters by name.")
    state = serializers.ChoiceField(choices=CommandState.values)
    reason = serializers.SerializerMethodField(
        help_text="The reason why it waits, or failed; an empty text otherwise."
    )
    attempts = serializers.IntegerField(help_text="The number of attempts to publish it.")
    queued_at = Moment()
    deadline = Moment(help_text="The time until which the device may answer.")
    next_attempt_at = Moment(
        source="due_at", allow_null=True, help_text="The time of the next step; at the latest the deadline."
    )
    sent_at = Moment(allow_null=True)
    acknowledged_at = Moment(allow_null=True, help_text="The time at which the broker acknowledged it.")
    answered_at = Moment(allow_null=True)
    ended_at = Moment(allow_null=True, help_text="The time at which it failed, expired or was cancelled.")
    response = serializers.JSONField(
        help_text="The answer of the device: `ok`, and `result` or `error`; null before it."
    )

    def get_reason(self, command: DeviceCommand) -> str:
        """Return the reason in words."""
        return description.reason(command)


class NewCommandSerializer(Closed):
    """A command to send."""

    name = serializers.CharField(max_length=100, help_text="The name of a command that the type declares.")
    payload = serializers.DictField(
        required=False, default=dict, help_text="The parameters by name, all that the command declares."
    )
    deadline = Duration(
        required=False,
        default=None,
        allow_null=True,
        help_text="The time from now until the answer, such as `90s`, `15m` or `1h`, at most `366d`. "
        "Without it, the setting DEVICEHUB_COMMAND_DEADLINE.",
    )


class CommandFilter(django_filters.FilterSet):
    """The filters of the list of commands, within those of one device, which an index finds."""

    class Meta:
        model = DeviceCommand
        fields: tuple[str, ...] = ()

    state = ChoiceFilter(choices=CommandState.choices, help_text="The state of the commands.")
    name = TextFilter(help_text="The name of the commands.")


class OfCommands(DeviceView):
    """A view of the commands of a device, which the device itself may read."""

    tag = "Commands"
    open_to_devices = frozenset({"GET", "HEAD"})

    def visible(self, action: str = visibility.VIEW) -> QuerySet[DeviceCommand]:
        """Return the commands of the device of the address. Raise Http404, Problem `not-allowed`."""
        kind, device = self.device()
        if not isinstance(self.request.user, DeviceCaller):
            self.require(action, DeviceCommand)
        return DeviceCommand.objects.filter(device_key=kind.key(device.device_id))


class Commands(OfCommands, ListView):
    """The commands of a device."""

    scopes = {"GET": "devices:read", "POST": "commands:write"}
    serializer_class = CommandSerializer
    heavy = {"payload": "payload", "response": "response"}
    filterset_class = CommandFilter
    order = ("-queued_at", "-id")

    def rows(self) -> QuerySet[Any]:
        """Return the commands of the device."""
        return self.visible()

    @documented(
        operation_id="list_commands",
        summary="List the commands of a device",
        responses=CommandSerializer(many=True),
    )
    def get(self, request: Request, **parts: str) -> Response:
        """Return the commands, the newest first. A page of heavy commands has fewer rows than `limit`."""
        return self.list()

    @documented(
        operation_id="send_command",
        summary="Send a command to a device",
        parameters=[IDEMPOTENCY_KEY],
        request=NewCommandSerializer,
        responses={202: CommandSerializer, **refused(409, "The device is disabled.")},
        examples=[
            OpenApiExample(
                "Set an interval",
                {"name": "set_interval", "payload": {"interval": 60}, "deadline": "1h"},
                request_only=True,
            )
        ],
    )
    def post(self, request: Request, **parts: str) -> Response:
        """Queue a command. The ingest worker publishes it within about a second, and again until it arrives.

        The answer comes before that. Read the command at `Location` to follow its progress.
        """
        self.device(visibility.CHANGE)
        self.require(visibility.ADD, DeviceCommand)
        values = self.body(NewCommandSerializer)

        def make() -> Made:
            _, device = self.device(visibility.CHANGE)
            try:
                command = commands.enqueue(
                    device, values["name"], values["payload"], deadline=values["deadline"]
                )
            except InvalidCommand as error:
                raise invalid(error.field, str(error)) from error
            except commands.CommandNotSent as error:
                raise Problem("conflict", f"{error}. Enable it first.") from error
            return Made(
                202,
                CommandSerializer(command).data,
                address("api_command", **parts, id=command.pk),
                device_key=command.device_key,
            )

        return repeatable.once(request, make)


class OneCommand(OfCommands):
    """One command of a device."""

    scopes = {"GET": "devices:read", "DELETE": "commands:write"}
    query = SelectedOne

    @documented(operation_id="get_command", summary="Read a command", responses=CommandSerializer)
    def get(self, request: Request, **parts: Any) -> Response:
        """Return the command."""
        return Response(CommandSerializer(self._row(visibility.VIEW), context=self.context()).data)

    @documented(
        operation_id="cancel_command",
        summary="Cancel a command",
        responses={
            200: CommandSerializer,
            **refused(409, "The command has ended, is being sent or may have arrived."),
        },
    )
    def delete(self, request: Request, **parts: Any) -> Response:
        """Cancel the command while it is queued, and return it. Its row stays, with the state `cancelled`."""
        command = self._row(visibility.CHANGE)
        is_cancelled = commands.cancel(command)
        command = self._row(visibility.CHANGE)
        if not is_cancelled:
            raise Problem("conflict", description.obstacle(command))
        return Response(CommandSerializer(command).data)

    def _row(self, action: str) -> DeviceCommand:
        row = self.visible(action).filter(pk=self.kwargs["id"]).first()
        if row is None:
            raise Http404
        return row
