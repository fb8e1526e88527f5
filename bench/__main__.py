"""`script/bench auth` and `script/bench fuzz`: what they do is in bench/auth.py and bench/fuzz.py."""

import argparse
import sys

from bench import auth, fuzz

parser = argparse.ArgumentParser(prog="script/bench")
commands = parser.add_subparsers(dest="command", required=True)
answers = commands.add_parser("auth", help="answers to brokers against a bare application")
answers.add_argument("--seconds", type=float, default=3, help="of one round")
answers.add_argument("--rounds", type=int, default=5)
answers.add_argument("--json", action="store_true")
fuzzing = commands.add_parser("fuzz", help="the parsers of questions, fed with anything")
fuzz.add_arguments(fuzzing)

if __name__ == "__main__":
    arguments = parser.parse_args()
    if arguments.command == "fuzz":
        sys.exit(fuzz.main(fuzzing, arguments))
    sys.exit(auth.run(seconds=arguments.seconds, rounds=arguments.rounds, as_json=arguments.json))
