"""Notices of the admin in the words of the product, in the place of those of Django."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.http import HttpRequest

NOTICE = "_devicehub_notice"  # The attribute of a request that holds our notice.


@contextmanager
def saying(request: HttpRequest, notice: str) -> Iterator[None]:
    """Let each notice of the block be *notice*, or the one that say_instead() set before or within it."""
    if not hasattr(request, NOTICE):
        say_instead(request, notice)
    try:
        yield
    finally:
        delattr(request, NOTICE)


def say_instead(request: HttpRequest, notice: str) -> None:
    """Let *notice* be the next one about *request*."""
    setattr(request, NOTICE, notice)


class Notices:
    """A mixin for a ModelAdmin that sends our notices."""

    def message_user(
        self, request: HttpRequest, message: Any, level: Any = messages.INFO, *args: Any, **options: Any
    ) -> None:
        """Send a notice; within saying() ours in the place of *message*."""
        super().message_user(request, getattr(request, NOTICE, "") or message, level, *args, **options)  # type: ignore[misc]
