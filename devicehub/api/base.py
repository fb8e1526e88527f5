"""The base of every view of the API: who may call it, which parameters it takes, and the form of its answers.

    class Denials(ListView):
        scopes = {"GET": "access:read"}
        serializer_class = DenialSerializer
        filterset_class = DenialFilter
        order = ("-last_at", "-id")

        def rows(self) -> QuerySet[Denial]:
            return visibility.rows(Denial.objects.all(), self.request.user, "principal")

A view holds no rule: it finds what the caller may see by devicehub.visibility, and calls the actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import Http404
from django_filters import rest_framework as django_filters
from rest_framework import serializers
from rest_framework.exceptions import NotAcceptable, NotAuthenticated
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.permissions import BasePermission
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from devicehub import api_keys, visibility
from devicehub.api import clear_text, heavy_pages, paging, problems
from devicehub.api.bodies import JsonParser, JsonRenderer
from devicehub.api.callers import DeviceCaller, KeyAuthentication, WithSession
from devicehub.api.fields import Selected
from devicehub.api.operations import Schema
from devicehub.api.problems import Problem
from devicehub.api.throttling import RateThrottle
from devicehub.kinds.identifiers import is_text
from devicehub.kinds.registry import Kind, registry
from devicehub.models import ApiKey, BaseDevice

ACTIONS = {
    "GET": visibility.VIEW,
    "HEAD": visibility.VIEW,
    "POST": visibility.ADD,
    "PATCH": visibility.CHANGE,
    "DELETE": visibility.DELETE,
}
MAX_LENGTH = 1_000  # characters of a parameter


class MayCall(BasePermission):
    """The permission to call a view at all: the scope of a key, and the routes that are open to devices."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return True, or raise NotAuthenticated or Problem `not-allowed`."""
        if not request.user or not request.user.is_authenticated:
            raise NotAuthenticated
        if isinstance(request.user, DeviceCaller):
            if request.method in view.open_to_devices:
                return True
            raise Problem(
                "not-allowed", "The key of a device reaches its own device, readings and commands only."
            )
        if request.method in view.of_devices_only:
            raise Problem("not-allowed", "Only a device may do this, with its own API key.")
        scope = view.scope_of(request.method)
        if isinstance(request.auth, ApiKey) and scope and scope not in request.auth.scopes:
            raise Problem("not-allowed", f"This key lacks the scope {scope}.")
        return True


class Negotiation(DefaultContentNegotiation):
    """The choice of the form of an answer by `Accept` alone; the parameter `format` is one like any other."""

    settings = SimpleNamespace(URL_FORMAT_OVERRIDE=None)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        """Return the renderer and its media type. Raise NotAcceptable.

        A client that accepts problems alone gets the first form: the schema names no other media type for an answer
        without a body, and generated clients send the first one with `json` in it also for streams.
        """
        try:
            return super().select_renderer(request, renderers, format_suffix)
        except NotAcceptable:
            accepted = [text.partition(";")[0].strip() for text in self.get_accept_list(request)]
            if problems.MEDIA_TYPE not in accepted:
                raise
            return renderers[0], renderers[0].media_type


class ApiView(APIView):
    """A view of the API.

    *scopes* is the scope that a key needs, by method; an empty one needs any valid key. *open_to_devices* are the
    methods that a device may call with its own key, and *of_devices_only* those that nobody else may call.
    *query* is a serializer of the parameters; others are refused. Its values are in `self.params`.
    """

    scopes: ClassVar[Mapping[str, str]] = {}
    open_to_devices: ClassVar[frozenset[str]] = frozenset()
    of_devices_only: ClassVar[frozenset[str]] = frozenset()
    query: ClassVar[type[serializers.Serializer] | None] = None
    tag: ClassVar[str] = ""

    authentication_classes = (KeyAuthentication, WithSession)
    permission_classes = (MayCall,)
    throttle_classes = (RateThrottle,)
    renderer_classes: ClassVar[Sequence[type[BaseRenderer]]] = (JsonRenderer,)
    parser_classes = (JsonParser,)
    content_negotiation_class = Negotiation
    versioning_class = None
    schema = Schema()
    params: Mapping[str, Any]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        unknown = set(cls.scopes.values()) - {"", *api_keys.SCOPES}
        if unknown:
            raise TypeError(f"{cls.__name__} names unknown scopes: {sorted(unknown)}")

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """Return the view. It needs no sign-in by a session, because MayCall decides.

        It opens its transactions itself, also in a project with ATOMIC_REQUESTS: a list locks no rows.
        """
        view = transaction.non_atomic_requests(super().as_view(**initkwargs))
        view.login_required = False
        return view

    def get_exception_handler(self) -> Any:
        """Return the function that makes problem details of errors, whatever the settings of the project say."""
        return problems.answer

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Check the request before its method is called. Raise Problem, NotAuthenticated."""
        clear_text.refuse(request._request)
        super().initial(request, *args, **kwargs)
        self.params = self._params(request)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Return *response*, which no cache keeps: it is for this caller alone. A problem is JSON for any `Accept`."""
        if getattr(response, "content_type", None) == problems.MEDIA_TYPE:
            request.accepted_renderer = JsonRenderer()
            request.accepted_media_type = problems.MEDIA_TYPE
        found = super().finalize_response(request, response, *args, **kwargs)
        found.headers.setdefault("Cache-Control", "no-store")
        return found

    def options(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return the methods in `Allow`, and nothing about their values: the schema describes these."""
        return Response(status=204)

    @classmethod
    def scope_of(cls, method: str | None) -> str:
        """Return the scope that a key needs for *method*."""
        return cls.scopes.get("GET" if method == "HEAD" else str(method), "")

    @classmethod
    def parameters(cls) -> list[str]:
        """Return the names of the parameters that GET takes."""
        return [] if cls.query is None else list(cls.query().fields)

    def require(self, action: str, model: type[Model]) -> None:
        """Raise Problem `not-allowed` unless the user may do *action* with *model*."""
        if not visibility.may(self.request.user, action, model):
            meta = model._meta
            name = f"{meta.app_label}.{action}_{meta.model_name}"
            raise Problem("not-allowed", f"The user lacks the permission {name}.")

    def require_unlimited(self) -> None:
        """Raise Problem `not-allowed` if the caller is limited to sites, for what reaches other sites too."""
        if visibility.is_limited(self.request.user):
            raise Problem("not-allowed", "This reaches all sites, and you or this key are limited to some.")

    def context(self) -> dict[str, Any]:
        """Return the context of a serializer of answers: the request, and the members that were selected."""
        return {"request": self.request, "fields": self.params.get("fields", ())}

    def body(self, serializer: type[serializers.Serializer], **options: Any) -> Any:
        """Return the values in the body by *serializer*. Raise ValidationError, also for unknown names."""
        bound = serializer(data=self.request.data, **options)
        bound.is_valid(raise_exception=True)
        return bound.validated_data

    def _params(self, request: Request) -> Mapping[str, Any]:
        allowed = self.parameters() if request.method in ("GET", "HEAD") else []
        for name in request.query_params:
            if name not in allowed:
                taken = (
                    f"this address takes {', '.join(sorted(allowed))}"
                    if allowed
                    else "this address takes none"
                )
                raise Problem("unknown-parameter", f"There is no parameter {name[:100]}; {taken}.")
            values = request.query_params.getlist(name)
            if len(values) > 1:
                raise problems.invalid(name, "Give it once.")
            most = paging.LONGEST_CURSOR if name == "cursor" else MAX_LENGTH
            if len(values[0]) > most or not is_text(values[0] or "-"):
                raise problems.invalid(name, f"Give at most {most:,} characters, without NUL.")
        if self.query is None or not allowed:
            return {}
        given = {
            name: request.query_params[name] for name in self.query().fields if name in request.query_params
        }
        bound = self.query(data=given)
        bound.is_valid(raise_exception=True)
        found: Mapping[str, Any] = bound.validated_data
        return found


class DeviceView(ApiView):
    """A view below `/api/devices/{type}/{device_id}/`."""

    tag = "Devices"

    def device(self, action: str = visibility.VIEW) -> tuple[Kind, BaseDevice]:
        """Return the kind and the device of the address, locked in a transaction.

        Raise Http404 for one that the caller may not see, Problem `not-allowed` if they may not do *action*.
        """
        kind, device_id = registry.get(self.kwargs["type"]), self.kwargs["device_id"]
        if kind is None or not is_text(device_id):
            raise Http404
        user: Any = self.request.user
        if isinstance(user, DeviceCaller):
            if (user.kind, user.device_id) != (kind, device_id):
                raise Http404
            rows = kind.device_model.objects.filter(pk=user.pk, is_active=True)
        else:
            self.require(visibility.VIEW, kind.device_model)
            rows = visibility.devices(kind, user).filter(device_id=device_id)
        if transaction.get_connection().in_atomic_block:
            rows = rows.select_for_update()
        device: BaseDevice | None = rows.first()
        if device is None:
            raise Http404
        if action != visibility.VIEW:
            self.require(action, kind.device_model)
        return kind, device


class Filters(django_filters.DjangoFilterBackend):
    """The filters of a list, for the schema; ListView applies them."""


class ListView(ApiView):
    """A list in pages by cursor. *order* is that of its rows; with its index each page is one short read.

    *heavy* are the columns that may be long, by the member that shows each; a page of heavy rows has fewer of them.
    """

    query = Selected
    serializer_class: ClassVar[type[serializers.Serializer]]
    filterset_class: ClassVar[type[django_filters.FilterSet] | None] = None
    order: ClassVar[Sequence[str]] = ("-id",)
    heavy: ClassVar[Mapping[str, str]] = {}
    filter_backends = (Filters,)
    pagination_class = paging.CursorPages

    def rows(self) -> QuerySet[Any]:
        """Return the rows that the caller may see."""
        raise NotImplementedError

    def get_queryset(self) -> QuerySet[Any]:
        """Return no rows of the model, for the schema of the filters."""
        model: Any = self.filterset_class._meta.model if self.filterset_class else None
        return model._default_manager.none()

    def shown(self, rows: list[Any]) -> list[Any]:
        """Return *rows* of one page with what the serializer needs, read for all of them at once."""
        return rows

    @classmethod
    def parameters(cls) -> list[str]:
        """Return the names of the parameters of the list, and of its filters."""
        return [*super().parameters(), *(cls.filterset_class.base_filters if cls.filterset_class else ())]

    def list(self) -> Response:
        """Return one page."""
        request = self.request
        if self.params["fields"]:
            self.serializer_class(context=self.context()).fields  # noqa: B018 - It refuses unknown members, also of no rows.
        rows = filtered(self.filterset_class, request, self.rows())
        return self.page(self.cut(rows))

    def cut(self, rows: QuerySet[Any]) -> paging.Page:
        """Return the page of *rows* that the parameters name."""
        place = (self.order, self.params["cursor"], self.params["limit"])
        wanted = self.params["fields"]
        shown = [column for name, column in self.heavy.items() if not wanted or name in wanted]
        if self.heavy:
            rows = rows.defer(*self.heavy.values())
        return heavy_pages.of_rows(rows, *place, shown) if shown else paging.of_rows(rows, *place)

    def page(self, page: paging.Page) -> Response:
        """Return *page* as an answer."""
        serializer = self.serializer_class(self.shown(page.rows), many=True, context=self.context())
        return Response(paging.answer(self.request, page, serializer.data))


def filtered(
    filterset: type[django_filters.FilterSet] | None, request: Request, rows: QuerySet[Any]
) -> QuerySet[Any]:
    """Return those of *rows* that the parameters of *request* select. Raise Problem `invalid`."""
    if filterset is None:
        return rows
    bound = filterset(request.query_params, queryset=rows, request=request)
    if not bound.is_valid():
        raise serializers.ValidationError(bound.errors)
    found: QuerySet[Any] = bound.qs
    return found
