"""`script/bench NAME`: each bench is in the module of its name."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from bench import api, auth, changes, faults, figures, fuzz, ingest, keeping, lwm2m, mutants, questions, storm
from bench.figures import CannotWrite
from rig.servers import MissingServer, ServerFailed
from rig.serving import VENDORS, CannotMeasure


def vendors(text: str) -> list[str]:
    """Return the databases of --database."""
    if text not in (*VENDORS, "all"):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(VENDORS)}, all")
    return list(VENDORS) if text == "all" else [text]


def positive(text: str) -> int:
    """Return the positive whole number *text*."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def numbers(text: str) -> list[int]:
    """Return the positive whole numbers with commas between, smallest first."""
    return sorted({positive(part) for part in text.split(",")})


def names(text: str) -> list[str]:
    """Return the scenarios of the fault suite with commas between."""
    wanted = text.split(",")
    for name in wanted:
        if name not in faults.NAMES:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(faults.NAMES)}")
    return wanted


def dialects(text: str) -> list[str]:
    """Return the dialects with commas between, or all."""
    wanted = list(questions.DIALECTS) if text == "all" else text.split(",")
    for name in wanted:
        if name not in questions.DIALECTS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(questions.DIALECTS)}")
    return wanted


def make_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the command line, and that of each bench by its name."""
    parser = argparse.ArgumentParser(prog="script/bench")
    benches = parser.add_subparsers(dest="bench", required=True)

    one = benches.add_parser("auth", help="answers to brokers against a bare application")
    one.add_argument(
        "--devices",
        dest="counts",
        type=numbers,
        default=[1_000, 1_000_000],
        help="sizes of the table (default: 1000,1000000)",
    )
    one.add_argument(
        "--connections", type=numbers, default=[1, 16], help="numbers of connections (default: 1,16)"
    )
    one.add_argument("--seconds", type=positive, default=3, help="seconds per measurement (default: 3)")
    one.add_argument("--rounds", type=positive, default=5, help="rounds per measurement (default: 5)")
    one.add_argument(
        "--dialects",
        type=dialects,
        default=["go-auth"],
        help="dialects of the questions, such as go-auth,emqx, or all (default: go-auth)",
    )
    one.set_defaults(module=auth)

    one = benches.add_parser("storm", help="a fleet that logs in at once")
    one.add_argument(
        "--devices", dest="count", type=positive, default=10_000, help="devices (default: 10000)"
    )
    one.add_argument(
        "--imported", type=positive, default=1_000, help="devices with bcrypt hashes (default: 1000)"
    )
    one.add_argument("--rounds", type=positive, default=5, help="logins of the imported devices (default: 5)")
    one.set_defaults(module=storm)

    one = benches.add_parser("changes", help="time until a change by SQL is in force")
    one.add_argument(
        "--devices", dest="count", type=positive, default=200, help="devices to disable (default: 200)"
    )
    one.set_defaults(module=changes)

    one = benches.add_parser(
        "ingest", help="messages into the database against a subscriber that stores nothing"
    )
    one.add_argument(
        "--devices", dest="counts", type=numbers, default=[200], help="devices that publish (default: 200)"
    )
    one.add_argument(
        "--fleet", type=positive, help="devices in a second, large database (default: those of --devices)"
    )
    one.add_argument(
        "--stored",
        type=positive,
        help="readings, and as many messages, in the large database (default: none)",
    )
    one.add_argument("--messages", type=positive, default=30_000, help="messages per round (default: 30000)")
    one.add_argument("--rounds", type=positive, default=5, help="rounds per measurement (default: 5)")
    one.set_defaults(module=ingest)

    one = benches.add_parser(
        "lwm2m", help="notifications of LwM2M endpoints against typed ingest, and codecs"
    )
    one.add_argument(
        "--devices", dest="count", type=positive, default=200, help="devices that publish (default: 200)"
    )
    one.add_argument(
        "--fleet", type=positive, default=100_000, help="endpoints in the table (default: 100000)"
    )
    one.add_argument("--messages", type=positive, default=20_000, help="messages per round (default: 20000)")
    one.add_argument("--rounds", type=positive, default=5, help="rounds per measurement (default: 5)")
    one.set_defaults(module=lwm2m)

    one = benches.add_parser("api", help="answers of the REST API, exports, and posts of readings")
    one.add_argument(
        "--devices", dest="count", type=positive, default=100_000, help="stations (default: 100000)"
    )
    one.add_argument(
        "--stored",
        type=positive,
        default=10_000_000,
        help="readings, and as many messages (default: 10000000)",
    )
    one.add_argument("--requests", type=positive, default=200, help="requests of each address (default: 200)")
    one.add_argument(
        "--messages",
        type=positive,
        default=api.MESSAGES,
        help="messages over MQTT per round (default: 10000)",
    )
    one.add_argument("--rounds", type=positive, default=3, help="rounds of posts (default: 3)")
    one.set_defaults(module=api)

    one = benches.add_parser(
        "faults", help="messages lost when a worker, a database, a broker or a network fails"
    )
    one.add_argument("--seconds", type=positive, default=8, help="seconds per fault (default: 8)")
    one.add_argument(
        "--only",
        type=names,
        default=list(faults.NAMES),
        help="names of faults with commas between (default: all)",
    )
    one.add_argument("--seed", type=int, help="a number that draws the faults (default: drawn and printed)")
    one.set_defaults(module=faults)

    one = benches.add_parser("keeping", help="roll up, chart, prune and erase a year of readings")
    one.add_argument("--rows", type=positive, default=500_000, help="readings of the year (default: 500000)")
    one.set_defaults(module=keeping)

    for one in benches.choices.values():
        one.add_argument(
            "--database",
            dest="vendors",
            type=vendors,
            default="all",
            help="sqlite, postgresql or all (default: all)",
        )

    one = benches.add_parser("mutants", help="small changes of the code, and whether the tests fail")
    mutants.add_arguments(one)
    one.set_defaults(module=mutants)

    for name, one in benches.choices.items():
        one.add_argument("--json", dest="as_json", action="store_true", help="print the report as JSON")
        one.add_argument(
            "--figures",
            dest="page",
            type=Path,
            metavar="FILE",
            help=f"also write a section of FILE, such as {figures.PAGE}",
        )
        one.add_argument("--section", metavar="NAME", help=f"name of that section (default: {name})")

    fuzz.add_arguments(benches.add_parser("fuzz", help="parsers of questions, fed with random input"))
    return parser, benches.choices


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line *given*, by default that of this process."""
    parser, benches = make_parser()
    chosen = parser.parse_args(given)
    if getattr(chosen, "as_list", False) and chosen.page is not None:
        benches[chosen.bench].error("--list measures nothing: leave out --figures")
    chosen.command = figures.command_line(sys.argv[1:] if given is None else given)
    return chosen


def main(
    *,
    bench: str,
    module: Any,
    command: str,
    as_json: bool,
    page: Path | None,
    section: str | None,
    **options: Any,
) -> int:
    """Run a bench and print its report. Return 0 if the targets are met, 1 if not, 2 if it cannot measure."""
    name = section or bench
    try:
        if page is not None:
            figures.check(page, name)
        report = {"machine": figures.machine()} | module.run(**options)
    except (CannotMeasure, CannotWrite, MissingServer, ServerFailed) as error:
        print(f"script/bench {bench}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    unwritten: CannotWrite | None = None
    if page is not None:
        title = module.TITLE if name == bench else f"{module.TITLE}: {name}"
        try:
            figures.write(page, name, figures.section(title, command, report, module.markdown(report)))
        except CannotWrite as error:
            unwritten = error  # The report of a long run is printed nevertheless.
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        print(report["machine"])
        module.show(report)
    if unwritten is not None:
        print(f"script/bench {bench}: {unwritten}", file=sys.stderr)
        return 2
    return 0 if report["met"] else 1


if __name__ == "__main__":
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # an exception, so that servers are stopped and files removed
    chosen = arguments()
    sys.exit(fuzz.main(chosen) if chosen.bench == "fuzz" else main(**vars(chosen)))
