"""A worker that looks for silent devices, and a record of signals."""

from rig.presence import notifications as notifications
from rig.presence import worker as worker
