"""A weather station, a worker that looks for silent ones, and a record of what was told."""

from rig.presence import station as station
from rig.presence import told as told
from rig.presence import worker as worker
