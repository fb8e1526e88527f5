"""Published and recorded payloads decode to the values that lwm2m-vectors.json names."""

import pytest

from rig.lwm2m import decoded, types_in, vectors

pytestmark = pytest.mark.sqlite_only


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["name"])
def test_a_vector_decodes_to_its_values(vector):
    expected = vector["expected"]

    rows = decoded(vector["format"], bytes.fromhex(vector["payload"]), vector["base"], types_in(expected))

    assert rows == expected
    assert expected == "error" or [type(row[2]) for row in rows] == [type(row[2]) for row in expected]
