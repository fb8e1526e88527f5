"""Weather stations with stored data."""

from rig.stations import keeps as keeps
from rig.stations import kind as kind
from rig.stations import neighbour as neighbour
from rig.stations import no_rest as no_rest
from rig.stations import station as station
