"""Each code block of each page runs, is compared with what the code does, or says why it cannot run.

The comment above a block says what happens to it; a block without one fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from django.core.management import call_command, get_commands, load_command_class
from django.test.utils import isolate_apps
from django.urls import resolve

from authsvc.chain import Chain
from authsvc.core import access
from authsvc.dialects import DIALECTS
from authsvc.freshness import read_cache
from bench import ingest as ingest_bench
from config import settings as project_settings
from devicehub.commands import sender
from devicehub.kinds import registry, topics
from devicehub.models import DeviceCommand, Rollup
from devicehub.retention import pruning
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.messages import STORED, fresh, readings, send
from rig.pages import PAGES, PRINTED, PRINTED_LIKE, ROOT, blocks, fenced, marked, missing_lines, page
from rig.preloaded import commands
from rig.programs import person, program
from rig.servers import free_port

pytestmark = pytest.mark.sqlite_only

# Blocks that run: by a shell, in a copy of the project or in a new one.
RUN = "run"
RUN_TO_1 = "run, ends with 1"
RUN_BESIDE_THE_QUICKSTART = "run beside the quickstart"
RUN_UNTIL_STOPPED = "run until stopped"
RUN_WITH_THE_SERVICE = "run with the service"
RUN_AGAINST_THE_API = "run against the API"  # tests/project/test_api_page.py
IN_A_SHELL = {RUN, RUN_TO_1, RUN_BESIDE_THE_QUICKSTART, RUN_UNTIL_STOPPED, RUN_WITH_THE_SERVICE}
IN_A_SHELL |= {PRINTED, PRINTED_LIKE, RUN_AGAINST_THE_API}
# Commands of manage.py, called in this process.
CALLED = "called"
# Blocks that a test compares, by the name of the block.
COMPARED = {
    "alarm rules",
    "amqtt broker",
    "answer of /readyz",
    "app",  # test_documented_apps
    "commands in code",
    "compose override",
    "configuration",
    "data",
    "device type",
    "directory",
    "kubernetes probes",
    "layout",
    "payload of LwM2M",  # tests/devicehub/management/test_decode_lwm2m.py
    "listen_leshan",  # tests/devicehub/lwm2m/leshan/test_listen_leshan.py
    "lwm2m in a project: end of plant/settings.py",  # test_wheel
    "lwm2m in a project: end of plant/urls.py",  # test_wheel
    "lwm2m endpoint",  # tests/devicehub/lwm2m/test_page_of_endpoints.py
    "lwm2m endpoint in TLV",  # tests/devicehub/lwm2m/test_page_of_endpoints.py
    "lwm2m provisioning",  # tests/devicehub/lwm2m/test_page_of_endpoints.py
    "lwm2m events",  # tests/devicehub/lwm2m/test_events.py
    "lwm2m status",  # tests/devicehub/lwm2m/test_inbox.py
    "nginx configuration",  # tests/project/test_systemd_page.py
    "own kind",  # tests/devicehub/kinds/test_own_kind_page.py
    "postgresql settings",
    "problem",
    "readings as resources",  # tests/devicehub/ingest/test_resources.py
    "cached directory",
    "command",
    "removal in code",
    "reply",
    "rollups in code",
    "scrape configuration",
    "status",
    "systemd environment",  # tests/project/test_systemd_page.py
    "systemd unit",  # tests/project/test_systemd_page.py
    "topics",
}
WITH_A_NAME = re.compile(r"(?:file|append): ([\w./-]+)")
OF_THE_WHEEL = re.compile(
    r"project: (?:run|serve|printed|(?:file|end of) [\w./-]+)"
)  # test_wheel makes a project of these
# The pages that test_wheel and test_from_django_devicehub follow.
OF_PROJECTS = ("include-in-your-project.md", "from-django-devicehub.md")
WITH_A_REASON = re.compile(r"not run: \w.{10,}")

INCLUDE, DECLARE = "how-to/include-in-your-project.md", "how-to/declare-a-device-type.md"
BESIDE_THE_QUICKSTART = ("how-to/send-commands.md", "how-to/simulate-devices.md")
IN_A_CLONE = [
    path
    for path in PAGES
    if path.parent.name == "how-to"
    and f"how-to/{path.name}" != DECLARE
    and {RUN, RUN_TO_1} & {block.mark for block in fenced(path.read_text())}
]
LEFT_BEHIND = shutil.ignore_patterns(".*", "var", "tests", "docs", "bench", "__pycache__")
BIN = Path(sys.executable).parent
SECONDS = 240  # A script that takes longer hangs; on a busy machine each of its commands takes seconds.
ACCEPTS = """
import socket, sys, time
for _ in range(600):
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
        break
    except OSError:
        time.sleep(0.05)
"""
# Waits until the worker has stored a message of STATION-001.
IS_CONNECTED = """
import sqlite3, time
database = sqlite3.connect("var/devicehub.sqlite3", timeout=20)
query = "SELECT count(*) FROM fleet_weatherstationdevice WHERE device_id = 'STATION-001' AND connected"
while not database.execute(query).fetchone()[0]:
    time.sleep(0.1)
"""

every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


@every_page
def test_each_block_says_what_becomes_of_it(path):
    unmarked = [
        f"{block.mark!r}: {block.text.splitlines()[0]}"
        for block in fenced(path.read_text())
        if block.mark not in IN_A_SHELL | COMPARED | {CALLED}
        and not WITH_A_NAME.fullmatch(block.mark)
        and not (path.name in OF_PROJECTS and OF_THE_WHEEL.fullmatch(block.mark))
        and not WITH_A_REASON.fullmatch(block.mark)
    ]

    assert unmarked == []


def test_each_name_of_a_compared_block_is_used():
    used = {block.mark for path in PAGES for block in fenced(path.read_text())}

    assert {name for name in COMPARED if name not in used} == set()


# Every block


@every_page
def test_snippets_can_be_read(path):
    """Python compiles, a shell parses every line of a shell block, JSON and YAML are such documents."""
    text = path.read_text()
    for number, block in enumerate(blocks(text, "python")):
        compile(block, f"{path.name}, Python block {number}", "exec")
    for block in blocks(text, "sh"):
        read = subprocess.run(["sh", "-n"], input=block, text=True, capture_output=True, check=False)
        assert read.returncode == 0, read.stderr
    for block in blocks(text, "json"):
        json.loads(block)
    for block in blocks(text, "yaml"):
        yaml.safe_load(block)


def shown_commands(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each `python manage.py` in the shell blocks of *text*, the command's name first."""
    for block in blocks(text, "sh"):
        for arguments in re.findall(r"manage\.py ([^\n|>&;)]+)", block.replace("\\\n", " ")):
            if not arguments.startswith("shell"):
                yield shlex.split(re.sub(r"\$\w+_PORT", "1883", arguments), comments=True)


@every_page
def test_a_shown_command_is_one_that_its_parser_takes(path):
    for name, *arguments in shown_commands(path.read_text()):
        command = load_command_class(get_commands()[name], name)
        command.create_parser("manage.py", name).parse_args(arguments)


# Pages that run in a shell


class Place(NamedTuple):
    """A folder to run a page in, with its environment."""

    folder: Path
    environment: dict[str, str]


def copy_of_the_project(folder: Path) -> Path:
    """Return *folder* as a clone of the project, with the installation of this one."""
    shutil.copytree(ROOT, folder, ignore=LEFT_BEHIND)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def script_of(text: str, marks: set[str], replaced: dict[str, str]) -> str:
    """Return the shell script that the blocks of *text* with one of *marks* make, and the files that they write."""
    script = ["set -eu", "set +m", "started="]
    for mark, _, block in fenced(text):
        for old, new in replaced.items():
            block = block.replace(old, new)
        named = WITH_A_NAME.fullmatch(mark)
        if named:
            sign = ">>" if mark.startswith("append") else ">"
            script.append(f"cat {sign} {named[1]} <<'END-OF-FILE'\n{block}END-OF-FILE")
        elif mark == RUN_TO_1 and mark in marks:
            script.append(f"code=0\n{block.rstrip()} || code=$?\ntest $code = 1")
        elif mark == RUN_UNTIL_STOPPED and mark in marks:
            script.append(started(block))
        elif mark in marks:
            script.append(block)
    script.append('if [ -n "$started" ]; then kill $started; wait; fi')
    return "\n".join(script)


def started(command: str) -> str:
    """Return the lines that start *command* and wait until its port accepts connections."""
    port = re.search(r"(?:127\.0\.0\.1:|--port )(\d+)", command)
    assert port, command
    return f'{command.rstrip()} > "$LOGS/{port[1]}" 2>&1 &\nstarted="$started $!"\n' + (
        f"{sys.executable} -IS -c {shlex.quote(ACCEPTS)} {port[1]}\n"
    )


def run_and_stop_all(script: str, place: Place) -> str:
    """Run *script* and return its output; processes that it started and did not stop are killed, and fail it."""
    with (place.folder.parent / "output").open("w+") as output:
        shell = subprocess.Popen(
            ["sh", "-c", script],
            cwd=place.folder,
            env=place.environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code: int | str = shell.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = "no end"
        finally:
            stopped = end_session(shell)
        output.seek(0)
        text = output.read()
    assert code == 0, text
    assert stopped, "the script left processes behind"
    return text


def end_session(shell: subprocess.Popen[bytes]) -> bool:
    """Kill the processes of the session of *shell* that do not end by themselves; return whether there were none."""
    ended = shell.poll() is not None
    for _ in range(100 if ended else 0):  # A stopped process may take a moment to be gone.
        try:
            os.killpg(shell.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    return False


@pytest.mark.servers
@pytest.mark.parametrize(
    "pages",
    [(), pytest.param(BESIDE_THE_QUICKSTART, marks=pytest.mark.long)],
    ids=["alone", "others beside it"],
)
def test_the_quickstart_ends_with_a_stored_reading(tmp_path, pages):
    """The pages that need a running broker use that of the quickstart, before it stops, and a simulated station."""
    clone = copy_of_the_project(tmp_path / "devicehub")
    quickstart, _, stop = page("quickstart.md").partition("## Stop")
    shorter = {"--duration 60": "--duration 2", "--count 20": "--count 2", "--count 50": "--count 2"}
    beside = [script_of(page(name), {RUN_BESIDE_THE_QUICKSTART}, shorter) for name in pages]
    if beside:
        beside = [
            "python manage.py simulate_devices weatherstation --prefix STATION- --count 1 > var/station.log 2>&1 &",
            "station=$!",
            f"python -c {shlex.quote(IS_CONNECTED)}",
            *beside,
            "kill $station",
        ]
    steps = [*marked(quickstart, RUN), *beside, *marked(stop, RUN)]
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment |= {"HTTP_PORT": str(free_port()), "MQTT_PORT": str(free_port()), "PIP_NO_INDEX": "1"}

    output = run_and_stop_all("set -eu\n" + "\n".join(steps), Place(clone, environment))

    with closing(sqlite3.connect(clone / "var" / "devicehub.sqlite3")) as database:
        stored = database.execute(
            "SELECT temperature, humidity FROM fleet_weatherstationreading AS reading"
            " JOIN fleet_weatherstationdevice AS device ON reading.device_id = device.id"
            " WHERE device.device_id = 'GARDEN-001'"
        ).fetchall()
    logs = [f"{log.name}:\n{log.read_text()}" for log in sorted((clone / "var").glob("*.log"))]
    text = textwrap.indent("\n".join([output, *logs]), "  ")
    assert stored == [(21.5, 40.0)], text
    assert [line for name in pages for line in missing_lines(page(name), output)] == [], text
    assert (clone / "var" / "devices.json").stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Yield a copy of the project, with STATION-001 and STATION-002 in `two-stations.sqlite3` beside it."""
    folder = tmp_path_factory.mktemp("pages")
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "LOGS": str(folder),
        "SECRET_KEY": "of the how-to pages, and of nothing else in the world",
        "DATABASE_URL": f"sqlite:///{folder / 'hub.sqlite3'}",
    }
    with commands(folder, environment) as environment:
        place = Place(copy_of_the_project(folder / "devicehub"), environment)
        run_and_stop_all(
            "python manage.py migrate -v 0\n"
            "python manage.py provision_devices weatherstation --count 2 --prefix STATION- --output ../stations.json",
            place,
        )
        (folder / "hub.sqlite3").rename(folder / "two-stations.sqlite3")
        yield place


@pytest.mark.servers
@pytest.mark.parametrize("path", IN_A_CLONE, ids=lambda path: path.stem)
def test_the_blocks_of_a_how_to_page_run_and_print_what_it_shows(path, clone):
    """Blocks marked `run` end with 0 or as the mark says, in one shell; `printed` is in what they printed."""
    folder = clone.folder.parent
    for left in folder.glob("hub.sqlite3*"):
        left.unlink()
    shutil.copy(folder / "two-stations.sqlite3", folder / "hub.sqlite3")
    shutil.rmtree(clone.folder / "var", ignore_errors=True)
    (clone.folder / "var").mkdir()
    text = path.read_text()
    replaced = {
        "/etc/devicehub": str(folder / "etc"),
        "postgres://devicehub:PASSWORD@127.0.0.1:5432/devicehub": clone.environment["DATABASE_URL"],
        "127.0.0.1:8000": f"127.0.0.1:{free_port()}",
        "var/devicehub.sqlite3": str(folder / "hub.sqlite3"),
    }
    marks = {RUN, RUN_TO_1, RUN_UNTIL_STOPPED, RUN_WITH_THE_SERVICE}
    script = script_of(text, marks, replaced)
    if RUN_WITH_THE_SERVICE in {block.mark for block in fenced(text)}:
        key = json.loads((folder / "stations.json").read_text())[0]["api_key"]
        serve = (
            f"gunicorn -c config/gunicorn.conf.py --bind {replaced['127.0.0.1:8000']} config.asgi:application"
        )
        script = script.replace("started=\n", f"started=\n{started(serve)}API_KEY={key}\n", 1)

    output = run_and_stop_all(script, clone)

    assert missing_lines(text, output) == [], output


@pytest.mark.servers
def test_the_page_about_a_device_type_makes_one_in_a_new_project(tmp_path):
    """A new project has the settings of its own page, an empty app, and no account yet."""
    folder, installed = tmp_path / "project", tmp_path / "installed"
    folder.mkdir()
    installed.mkdir()
    for package in ("authsvc", "devicehub"):
        (installed / package).symlink_to(ROOT / package)
    settings = "".join(marked(page(INCLUDE), "project: end of plant/settings.py")).replace(
        "greenhouses", "fleet"
    )
    script = [
        "set -eu",
        "django-admin startproject plant .",
        "python manage.py startapp fleet",
        f"cat >> plant/settings.py <<'END-OF-FILE'\n{settings}END-OF-FILE",
        script_of(page(DECLARE), {RUN}, {}),
    ]

    output = run_and_stop_all(
        "\n".join(script),
        Place(folder, {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(installed)}),
    )

    devices = json.loads((folder / "var" / "greenhouses.json").read_text())
    names = [device["mqtt_username"] for device in devices]
    assert names == [f"fleet-greenhousedevice-GH-00{number}" for number in (1, 2, 3)], output


# Commands that are called here


@pytest.fixture
def station(db: None) -> Any:
    """STATION-001, with the queued command whose id a page names."""
    device = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="STATION-001")
    (named,) = set(
        re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", page("how-to/send-commands.md"))
    )
    DeviceCommand.objects.create(id=named, device_key="weatherstation/STATION-001", name="reboot")
    return device


def call(block: str) -> str:
    """Call the commands of *block*, a shell block with nothing but commands of manage.py; return their output."""
    out = StringIO()
    for line in block.replace("\\\n", " ").splitlines():
        python, manage, *arguments = shlex.split(line)
        assert (python, manage) == ("python", "manage.py"), line
        call_command(*arguments, stdout=out, stderr=out)
    return out.getvalue()


def settings_of(configuration: str) -> set[str]:
    """Return the lines of *configuration* that are neither empty nor comments."""
    return {line for line in configuration.splitlines() if line and not line.startswith(("#", "%"))}


@pytest.mark.parametrize(
    "path", [path for path in PAGES if marked(path.read_text(), CALLED)], ids=lambda path: path.stem
)
def test_the_commands_of_a_page_can_be_called(path, station):
    """The configuration of a broker that the page shows is what they print, line by line and both ways."""
    text = path.read_text()

    printed = [
        re.sub(r"[\w-]{43}", "TOKEN", call(block)).partition("\n\n")[2] for block in marked(text, CALLED)
    ]

    shown = settings_of("".join(marked(text, "configuration")))
    if shown:
        assert shown == settings_of("".join(printed))


def test_the_configuration_of_each_broker_is_on_its_page():
    shown = {path.stem for path in PAGES if marked(path.read_text(), "configuration")}

    assert len(shown) == len(DIALECTS) - 1  # a command starts aMQTT, which has no file of its own


# Python


def run_block(text: str, mark: str, **names: Any) -> dict[str, Any]:
    """Execute the Python block of *text* with *mark*, with *names* defined; return the names that it defines."""
    (example,) = blocks(text, "python", mark)
    exec(example, names)
    return names


def test_the_directory_of_the_how_to_is_one():
    module = run_block(page(INCLUDE), "directory")

    needed = {name for name in vars(access.Directory) if not name.startswith("_")}
    assert {
        name for name in needed if not iscoroutinefunction(vars(module["Greenhouses"]).get(name))
    } == set()


def test_the_cached_directory_of_the_how_to_is_one():
    directory = run_block(page(INCLUDE), "cached directory")["Pumps"]()

    assert Chain([directory]).is_watched
    assert [source.table for source in directory.sources()] == ["plant_pump"]
    assert iscoroutinefunction(directory.lookup)
    assert iscoroutinefunction(directory.claimants)


@isolate_apps("fleet")
def test_the_device_type_that_keeps_things_for_a_time_can_be_declared():
    module = run_block(page("how-to/keep-and-remove-data.md"), "device type", __name__="fleet.models")
    try:
        models = module["GreenHouse"].create_models(module="fleet.models")
        kind = registry.registry.of(models[0])
        kept = {option: pruning.keep(kind, option) for option in pruning.OPTIONS}
    finally:
        registry.registry.unregister("greenhouse")

    days = {option: kept[option] and kept[option].days for option in kept}
    assert days == {"keep_readings": 90, "keep_messages": 14, "keep_hours": 730, "keep_days": None}


def test_the_code_of_the_how_to_reads_rollups(station, capsys):
    hour = datetime(2026, 5, 1, tzinfo=UTC)
    Rollup.objects.create(
        device_key="weatherstation/STATION-001",
        name="temperature",
        period="day",
        start=hour,
        low=1.0,
        high=3.0,
        mean=2.0,
        count=2,
    )

    run_block(page("how-to/keep-and-remove-data.md"), "rollups in code")

    assert capsys.readouterr().out == "2026-05-01 00:00:00+00:00 1.0 2.0 3.0 2\n"


def test_the_code_of_the_how_to_requests_a_removal(station):
    run_block(page("how-to/keep-and-remove-data.md"), "removal in code", device=station)

    assert not fresh(station).is_active


def test_the_code_of_the_how_to_sends_commands(station):
    module = run_block(page("how-to/send-commands.md"), "commands in code")

    module["slow_down"]("STATION-001")

    sent = DeviceCommand.objects.filter(name__in=["set_interval", "reboot"]).order_by("queued_at")
    assert [command.name for command in sent] == ["reboot", "set_interval", "reboot"]
    assert not module["is_done"](sent[1].id)


@pytest.mark.servers
def test_the_broker_of_ones_own_starts():
    (example,) = blocks(page("how-to/amqtt.md"), "python", "amqtt broker")
    example = example.replace("127.0.0.1:1883", f"127.0.0.1:{free_port()}")

    async def start_and_stop() -> None:
        names: dict[str, Any] = {}
        exec(example, names)
        await names["broker"].start()
        await names["broker"].shutdown()

    asyncio.run(start_and_stop())


# Payloads and answers


def test_the_topic_of_the_reference_is_the_default():
    (block,) = marked(page("reference/topics-and-payloads.md"), "topics")
    template, topic = block.splitlines()

    kind = registry.registry.of(WeatherStationDevice(device_id="STATION-001"))
    assert kind.topic_template == template
    assert topics.build(kind, "STATION-001", "data") == topic


@pytest.mark.parametrize("payload", marked(page("reference/topics-and-payloads.md"), "data"))
def test_the_data_of_the_reference_is_stored(station, payload):
    assert send(station, payload.encode(), at=datetime(2026, 5, 1, 13, tzinfo=UTC)) == STORED
    assert 25.3 in [row.get("temperature") for row in readings(station)]


def test_the_status_of_the_reference_is_stored(db):
    (payload,) = marked(page("reference/topics-and-payloads.md"), "status")
    valve = IrrigationValveDevice.objects.create(device_id="VALVE-001", mqtt_username="VALVE-001")

    assert send(valve, payload.encode(), "status") == STORED
    valve = fresh(valve)
    assert (valve.status, valve.battery_level, valve.mode) == ("online", 81.5, "manual")


def test_the_command_and_the_reply_of_the_reference_belong_together(station, published):
    (shown,), (reply,) = (
        marked(page("reference/topics-and-payloads.md"), mark) for mark in ("command", "reply")
    )
    station.send_command("set_interval", {"interval": 60})
    command = DeviceCommand.objects.get(name="set_interval")
    sender.send_now(command.id)

    sent = json.loads(published[-1].payload)
    assert sent == json.loads(shown) | {"id": str(command.id)}
    answer = json.loads(reply)
    assert answer["id"] == json.loads(shown)["id"]
    assert send(station, json.dumps(answer | {"id": str(command.id)}).encode(), "reply") == STORED
    command.refresh_from_db()
    assert (command.succeeded, command.result) == (True, answer["result"])


@pytest.mark.django_db
def test_the_problem_of_the_reference_is_what_a_program_gets():
    (shown,) = marked(page("reference/rest-api.md"), "problem")

    answer = program(person("ada")).post("/api/keys/", {"name": "ci", "scopes": ["root"]})
    assert answer.json() == json.loads(shown)


def test_the_answer_of_readyz_is_the_shown_one(send, entrance, transactional_db, monkeypatch):
    # Tests before this one in the process may have had stale answers.
    monkeypatch.setattr(read_cache.counts, "stale", 0)
    (shown,) = marked(page("reference/urls.md"), "answer of /readyz")

    assert send(entrance, "GET", "/readyz").json() == json.loads(shown)


# Configuration


def compose_services(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)["services"]


def test_the_compose_override_changes_services_that_exist():
    (block,) = marked(page("how-to/run-in-production.md"), "compose override")
    services = compose_services((ROOT / "docker-compose.yml").read_text())
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", page("reference/settings.md"), re.MULTILINE))

    for name, service in compose_services(block).items():
        assert set(service) <= {"environment"}
        assert name in services
        assert set(service["environment"]) <= documented


def test_the_probes_of_the_page_have_addresses():
    (block,) = marked(page("how-to/run-in-production.md"), "kubernetes probes")

    for probe in yaml.safe_load(block).values():
        assert resolve(probe["httpGet"]["path"])


def metrics_of_the_page() -> dict[str, set[str]]:
    """Return the documented metrics, each with its labels."""
    rows = re.findall(r"^\| `(devicehub_\w+)` \| \w+ \|([^|]*)\|", page("reference/urls.md"), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def test_the_alarm_rules_read_metrics_that_exist():
    documented = metrics_of_the_page()
    for block in marked(page("how-to/run-in-production.md"), "alarm rules"):
        (group,) = yaml.safe_load(block)["groups"]
        for rule in group["rules"]:
            assert {"alert", "expr"} <= set(rule) <= {"alert", "expr", "for"}
            used = re.findall(r"(devicehub_\w+?)(?:_bucket)?(?:\{(\w+)=[^}]*\})?[\[)]", rule["expr"])
            assert used, rule
            for name, label in used:
                assert name in documented, rule
                assert not label or label in documented[name], rule


def test_the_scrape_configuration_has_the_address_of_the_service():
    (block,) = marked(page("how-to/run-in-production.md"), "scrape configuration")

    ((job,),) = yaml.safe_load(block).values()
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]


def test_the_settings_of_a_large_fleet_are_those_of_the_bench():
    (block,) = marked(page("how-to/run-in-production.md"), "postgresql settings")

    shown = [re.sub(r"\s*#.*", "", line).replace(" = ", "=") for line in block.splitlines()]
    assert shown == list(ingest_bench.SERVER)


def test_the_options_for_sqlite_of_the_how_to_are_those_of_the_project():
    settings = "".join(marked(page(INCLUDE), "project: end of plant/settings.py"))
    middleware = ["django.contrib.auth.middleware.AuthenticationMiddleware"]
    module: dict[str, Any] = {"DATABASES": {"default": {}}, "MIDDLEWARE": middleware, "BASE_DIR": Path()}
    exec(settings, module)

    assert (
        module["DATABASES"]["default"]["OPTIONS"] == project_settings.database("sqlite:///var/x")["OPTIONS"]
    )


@every_page
def test_a_layout_names_what_exists(path):
    for block in marked(path.read_text(), "layout"):
        for line in block.splitlines():
            assert (ROOT / line.split()[0]).exists(), line
