"""A kind with a reading of each type, in tables of its own; the browser of tests of pages; guards of all answers."""

import pytest

from devicehub import DeviceType, Reading, reading_types
from rig.browser import browser as browser
from rig.described_headers import described_headers as described_headers
from rig.guarded_answers import no_secret_in_answers as no_secret_in_answers
from rig.kinds import tables_of


@pytest.fixture(scope="module")
def probe_kind(module_database):
    """Yield a kind with a reading of each type."""

    class Sampler(DeviceType):
        amount = Reading(type=reading_types.FLOAT, unit="m3")
        count = Reading(type=reading_types.INTEGER)
        wet = Reading(type=reading_types.BOOLEAN)
        label = Reading(type=reading_types.STRING)
        extra = Reading(type=reading_types.JSON)
        raw = Reading(type=reading_types.BINARY)

    with tables_of(Sampler, module_database) as kind:
        yield kind
