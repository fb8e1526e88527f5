"""A worker that looks for silent devices, and a record of what was told."""

from rig.presence import told as told
from rig.presence import worker as worker
