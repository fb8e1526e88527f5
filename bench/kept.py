"""`python -m bench.kept ROWS`: the steps of bench/steps.py in the database of the environment; JSON."""

from __future__ import annotations

import sys

import django

if __name__ == "__main__":
    django.setup()
    from bench import steps  # models exist only now

    steps.main(int(sys.argv[1]))
