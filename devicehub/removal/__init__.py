"""Removal of devices: deletion by request in small portions, erasure with all history, and retained messages.

`device.delete()` and `delete()` of a query set are Django's own methods, in one transaction.
"""

from devicehub.removal.deletion import check_deletable
from devicehub.removal.erase import Erased, NothingThere, erase, preview, register, unregister
from devicehub.removal.requests import (
    count_rows,
    delete_or_request,
    have_few_rows,
    request,
    request_all,
    work_off,
)

__all__ = [
    "Erased",
    "NothingThere",
    "check_deletable",
    "count_rows",
    "delete_or_request",
    "erase",
    "have_few_rows",
    "preview",
    "register",
    "request",
    "request_all",
    "unregister",
    "work_off",
]
