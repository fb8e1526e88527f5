"""Division of the table of readings while a worker stores messages: no message is lost."""

from __future__ import annotations

import random

import pytest

from rig import databases, scenarios, servers
from rig.scenarios import Rig, Scenario

READINGS = "fleet_weatherstationreading"


def divide(rig: Rig) -> None:
    """Divide the table while the worker stores messages."""
    rig.wait(1)
    code, said = rig.manage("partition_readings", "weatherstation", "--yes")
    if code:
        rig.complain(f"partition_readings ended with {code}: {said[-600:]}")
    rig.measure_recovery()
    parts = rig.database.query(
        f"SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        f" WHERE inhparent = '{READINGS}'::regclass"
    )
    if len(parts) < 4:
        rig.complain(f"it has the partitions {parts}")
    rig.wait(1)


@pytest.mark.servers
@pytest.mark.postgresql_only
def test_nothing_is_lost_while_a_table_is_divided(tmp_path, needs_real):
    scenario = Scenario("divide", "-", divide, "the table of readings is divided", databases=("postgresql",))
    try:
        with databases.STORES["postgresql"](tmp_path / "databases") as stores:
            report = scenarios.run(scenario, stores, tmp_path / "run", random.randrange(10**6))
    except servers.MissingServer as missing:
        needs_real(missing)

    assert (report.lost, report.phantom, report.complaints) == ([], [], []), report
    assert (report.duplicated, report.repeated) == (0, 0), report
    assert report.stored > 20
