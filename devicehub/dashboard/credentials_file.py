"""The answer with a file of new credentials: streamed while they are made, in no cache, and never again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

from authsvc import audit
from devicehub.actors import of_request
from devicehub.bulk import issued
from devicehub.bulk.issued import Issued
from devicehub.bulk.rotations import Overtaken

COOKIE = "devicehub_file"


def answer(
    request: HttpRequest, name: str, form: str, batches: Iterator[list[Issued]], *, reason: str = ""
) -> StreamingHttpResponse:
    """Return the file *name* of *form* (`csv` or `json`) with the credentials in *batches*.

    A cookie tells the page that asked that the file begins, and its name; the end of the form's nonce marks it.

    Each step of *batches* runs when the reader has taken the text before it, as the user of *request*. A reader who
    goes away ends the run after the step in which it is. The file of a run that was overtaken ends with the reason.
    """
    pieces = _as_user(_pieces(form, batches), of_request(request), reason)
    content = _awaited(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(
        content,
        content_type=issued.CONTENT_TYPES[form],
        headers={
            "Cache-Control": "no-store, private",
            "Content-Disposition": f'attachment; filename="{name}.{form}"',
            "X-Accel-Buffering": "no",
        },
    )
    mark = f"{request.POST.get('nonce', '')[-12:]}.{name}"
    response.set_cookie(COOKIE, mark, max_age=600, secure=request.is_secure(), samesite="Lax")
    return response


def title(over: bool, complete: bool) -> str:
    """Return the title of a page that waits for a file, which is *over* when no run writes it."""
    if not over:
        return "The file is being written."
    return "The file is complete." if complete else "The file broke off."


def _pieces(form: str, batches: Iterator[list[Issued]]) -> Iterator[str]:
    file = issued.new_file(form)
    yield file.begin()
    try:
        for batch in batches:
            yield file.piece(batch)
    except Overtaken as error:
        yield file.broken(str(error))
        raise  # The server then breaks the connection off, so that the file does not look complete.
    yield file.end()


def _as_user(pieces: Iterator[str], actor: audit.Actor, reason: str) -> Iterator[str]:
    """Yield *pieces*; while one is made, changes are those of *actor*. The request has its answer by then."""
    while True:
        with audit.acting(actor), audit.because(reason):
            piece = next(pieces, None)
        if piece is None:
            return
        if piece:
            yield piece


async def _awaited(pieces: Iterator[str]) -> AsyncIterator[str]:
    """Yield *pieces*, each made in the thread of the request: Django would collect a plain iterator first."""
    step = sync_to_async(lambda: next(pieces, None))
    while (piece := await step()) is not None:
        yield piece
