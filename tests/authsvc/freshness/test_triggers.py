"""Missing triggers are found and created again."""

from __future__ import annotations

import pytest
from django.db import connection

from authsvc.checks import check_triggers
from authsvc.freshness import triggers
from authsvc.models import Broker, Grant
from rig.asking import sql

pytestmark = pytest.mark.usefixtures("nothing_pending")


def test_a_missing_trigger_is_found_and_made_again(transactional_db):
    """Without it a change of a broker or a grant goes unnoticed. A restore or a rebuilt table can lose it."""
    assert check_triggers(databases=["default"]) == []
    wanted = triggers.expected(connection.vendor)
    assert {trigger.table for trigger in wanted} >= {Broker._meta.db_table, Grant._meta.db_table}
    for table, name in wanted:
        sql(f"DROP TRIGGER {name}" + (f" ON {table}" if connection.vendor == "postgresql" else ""))

        found = check_triggers(databases=["default"])
        message = f"The trigger {table}.{name} is missing."
        assert [(error.id, error.msg) for error in found] == [("authsvc.W005", message)]

        triggers.install()
        assert check_triggers(databases=["default"]) == []
