"""`python -m bench.keeping_process ROWS` runs the steps of bench/steps.py in the database of its environment."""

from __future__ import annotations

import sys

import django

if __name__ == "__main__":
    django.setup()
    from bench import steps  # after setup(), because it imports models

    steps.main(int(sys.argv[1]))
