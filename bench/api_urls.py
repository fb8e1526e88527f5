"""The URLs of the project, and `bare/`: a view of Django REST framework that authenticates, and does nothing else."""

from __future__ import annotations

from typing import Any

from django.urls import path
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from config.urls import handler400 as handler400
from config.urls import handler403 as handler403
from config.urls import handler404 as handler404
from config.urls import handler500 as handler500
from config.urls import urlpatterns as of_project
from devicehub.api.callers import KeyAuthentication


class AnyParser(BaseParser):  # type: ignore[misc]
    """A parser that reads the body, and makes nothing of it."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        """Return the body."""
        return stream.read()


class Bare(APIView):  # type: ignore[misc]
    """The reference of lists, and of posts."""

    authentication_classes = (KeyAuthentication,)
    permission_classes = ()
    throttle_classes = ()
    parser_classes = (AnyParser,)
    renderer_classes = (JSONRenderer,)

    def get(self, request: Request) -> Response:
        """Return nothing, to a caller with a valid key."""
        return Response({"ok": request.user.is_authenticated})

    def post(self, request: Request) -> Response:
        """Read the body, and return nothing, to a caller with a valid key."""
        return Response({"ok": request.user.is_authenticated, "bytes": len(request.data)}, status=202)


# First, since the project has a page at the root, and an answer to all other addresses below it.
bare = Bare.as_view()
bare.login_required = False
urlpatterns = [path("bare/", bare), *of_project]
