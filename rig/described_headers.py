"""A guard around tests of the API: the headers of each answer are those of its description."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
from django.test import Client

from devicehub.api import documentation

NAMED = ("ETag", "Location", "Retry-After", "WWW-Authenticate")
METHODS = ("get", "post", "put", "patch", "delete")


@functools.cache
def operations() -> list[tuple[str, re.Pattern[str], dict[str, dict[str, bool]]]]:
    """Return the operations of the description: the method, the paths, and by status its headers; True needs one."""
    found = documentation.document()
    headers = found["components"]["headers"]

    def of_answer(response: dict[str, Any]) -> dict[str, bool]:
        return {
            name: headers[header["$ref"].rpartition("/")[2]].get("required", False)
            for name, header in response.get("headers", {}).items()
        }

    return [
        (
            method,
            re.compile(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(path))),
            {status: of_answer(response) for status, response in item[method]["responses"].items()},
        )
        for path, item in found["paths"].items()
        for method in METHODS
        if method in item
    ]


def faults(method: str, path: str, status: int, headers: Any) -> list[str]:
    """Return the differences between the headers of an answer and the description; none for other addresses."""
    method = "get" if method == "HEAD" else method.lower()
    for described_method, paths, by_status in operations():
        if described_method == method and paths.fullmatch(path):
            described = by_status.get(str(status), by_status["default"])
            missing = [name for name, needed in described.items() if needed and name not in headers]
            more = [name for name in NAMED if name in headers and name not in described]
            place = f"{method} {path} {status}"
            return [f"{place} lacks {name}" for name in missing] + [
                f"{place} has {name}, which is not described" for name in more
            ]
    return []


@pytest.fixture(autouse=True)
def described_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test in which an answer has other headers than the description of the API says."""
    send = Client.request

    def request(client: Client, **options: Any) -> Any:
        response: Any = send(client, **options)
        path = str(options.get("PATH_INFO", ""))
        found = faults(str(options.get("REQUEST_METHOD")), path, response.status_code, response.headers)
        if found:
            pytest.fail("\n".join(found))
        return response

    monkeypatch.setattr(Client, "request", request)
