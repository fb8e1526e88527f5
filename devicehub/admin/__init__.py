"""The admin pages of every kind and of the models that all kinds share. They never show a secret or a hash.

Django imports this package alone, so it imports the modules that register pages.
"""

from devicehub.admin import (
    accounts,
    audit,
    brokers,
    bulk,
    commands,
    denials,
    devices,
    grants,
    groups,
    keys,
    kinds,
    people,
    records,
    second_factor,
)

__all__ = [
    "accounts",
    "audit",
    "brokers",
    "bulk",
    "commands",
    "denials",
    "devices",
    "grants",
    "groups",
    "keys",
    "kinds",
    "people",
    "records",
    "second_factor",
]
