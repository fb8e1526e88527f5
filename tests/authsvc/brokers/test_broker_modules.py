"""A broker is two modules with one name: its dialect, and its configuration."""

from __future__ import annotations

import pkgutil

import pytest

from authsvc import brokers, dialects
from authsvc.brokers import BROKERS, BY_DIALECT
from authsvc.dialects import DIALECTS

# The JWT backend of the mosquitto plugin asks in a dialect of its own.
OF_GO_AUTH = "jwt"


def modules(package) -> set[str]:
    return {found.name for found in pkgutil.iter_modules(package.__path__)} - {"base"}


def test_every_dialect_has_the_module_of_its_broker():
    assert modules(brokers) == modules(dialects) - {OF_GO_AUTH}


def test_every_dialect_has_a_line_in_both_lists():
    """The lines are in the same order, and each is there once."""
    assert [broker.dialect for broker in BROKERS] == [dialect.name for dialect in DIALECTS]
    assert list(BY_DIALECT.values()) == list(BROKERS)


@pytest.mark.parametrize("broker", BROKERS, ids=lambda broker: broker.dialect)
def test_a_broker_is_in_the_module_of_its_dialect(broker):
    name = "go_auth" if broker.dialect == OF_GO_AUTH else broker.dialect.replace("-", "_")
    module = getattr(brokers, name)

    assert broker in vars(module).values()
    assert broker.template in vars(module).values()
