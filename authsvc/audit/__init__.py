"""The audit: a record of each change of an identity or a right, written in the transaction of the change.

The actions record themselves, so a change by a page, a program or the shell leaves the same row:

    @transaction.atomic
    def rotate_token(broker: Broker) -> str:
        token = broker.issue_token()
        broker.save()
        audit.record("token_rotated", broker.key)
        return token

The actor comes from the context: a request sets its user, a worker itself, and in a shell it is the login name.
"""

from authsvc.audit.actions import OF_CREDENTIALS, UnknownAction, groups, label, labels, register
from authsvc.audit.actors import Actor, acting, because, current_actor, process, system
from authsvc.audit.entries import Change, difference, record, record_many, values, was_recorded, watching

__all__ = [
    "OF_CREDENTIALS",
    "Actor",
    "Change",
    "UnknownAction",
    "acting",
    "because",
    "current_actor",
    "difference",
    "groups",
    "label",
    "labels",
    "process",
    "record",
    "record_many",
    "register",
    "system",
    "values",
    "was_recorded",
    "watching",
]
