"""`python -m rig.on_postgresql COMMAND ...` runs a command with the DATABASE_URL of a new PostgreSQL."""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from rig.servers import postgresql

# A test database need not survive a power cut. Tests of durability start clusters of their own.
FAST = ["fsync=off", "full_page_writes=off"]

if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory(prefix="devicehub-") as folder,
        postgresql(Path(folder), settings=FAST) as url,
    ):
        environment = {**os.environ, "DATABASE_URL": url}
        with subprocess.Popen(sys.argv[1:], env=environment) as process:
            while process.poll() is None:
                with suppress(KeyboardInterrupt):  # The command gets the signal too, and ends in order.
                    process.wait()
        sys.exit(process.returncode)
