"""How many examples a property test tries: more in the long part of the suite."""

import os

# rig/lanes.py sets it for `script/test --long`.
FACTOR = int(os.environ.get("EXAMPLES_FACTOR", "1"))


def examples(count: int) -> int:
    """Return *count*, or many times as many in the long part."""
    return count * FACTOR
