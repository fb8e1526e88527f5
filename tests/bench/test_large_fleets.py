"""Benches at the size of a large fleet, for the long part of the suite."""

import json
import subprocess
import sys

import pytest

from rig.serving import ROOT, VENDORS

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers, pytest.mark.long]


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_message_of_a_large_fleet_is_stored_once(vendor):
    """100,000 devices, of which 2,000 publish, beside 200,000 stored readings."""
    size = [
        "--devices",
        "2000",
        "--fleet",
        "100000",
        "--stored",
        "200000",
        "--messages",
        "20000",
        "--rounds",
        "1",
    ]

    done = subprocess.run(
        [sys.executable, "-m", "bench", "ingest", "--database", vendor, *size, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )

    assert done.returncode in (0, 1), done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == 3
    assert {(row["sent"], row["stored"], row["lost"], row["duplicated"]) for row in rows} == {
        (20000, 20000, 0, 0)
    }
