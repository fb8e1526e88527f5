"""Texts made of a handover: the downloads, and programs that are ready to run.

No program holds the password: each reads one of the downloads, so that it can be shown, sent and committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.template.loader import render_to_string

from devicehub.conf import settings
from devicehub.credentials.handover import Handover
from devicehub.credentials.literals import in_c, in_python, in_shell
from devicehub.kinds.declare import Reading, reading_types
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType


@dataclass(frozen=True)
class Download:
    """A text to save under *file_name*. It holds secrets."""

    slug: str
    label: str
    file_name: str
    content_type: str
    text: str = field(repr=False)


@dataclass(frozen=True)
class Snippet:
    """A program that is ready to run beside the download that it reads."""

    slug: str
    label: str
    text: str


def downloads(handover: Handover) -> list[Download]:
    """Return the downloads: JSON, variables for a shell, and a header for C."""
    name = handover.file_name
    variables = _variables(handover)
    lines = "".join(f"{variable}={in_shell(str(value))}\n" for variable, value in variables.items())
    made = [
        Download("json", "JSON", f"{name}.json", "application/json", _json(handover)),
        Download("env", ".env", f"{name}.env", "text/plain", lines),
    ]
    if handover.password:
        made.append(Download("header", "C header", f"{name}.h", "text/x-c", _header(handover)))
    return made


def snippets(handover: Handover) -> list[Snippet]:
    """Return the programs; none without a password."""
    if not handover.password:
        return []
    payload = json.dumps(sample(handover.kind), ensure_ascii=False)
    return [
        Snippet("mosquitto", "mosquitto", _program(handover, "mosquitto", in_shell, payload)),
        Snippet("python", "Python", _program(handover, "python", in_python, payload)),
        Snippet("arduino", "Arduino", _program(handover, "arduino", in_c, payload)),
        Snippet("espidf", "ESP-IDF", _program(handover, "espidf", in_c, payload)),
    ]


def sample(kind: Kind) -> dict[str, Any]:
    """Return a message that *kind* accepts: a value for each declared reading, except bytes."""
    chosen = {name: _sample_value(reading) for name, reading in kind.readings.items()}
    return {name: value for name, value in chosen.items() if value is not None}


def _sample_value(reading: Reading) -> Any:
    if reading.type is reading_types.FLOAT:
        return _within(reading, 21.4)
    if reading.type is reading_types.INTEGER:
        return int(_within(reading, 21))
    others: Mapping[Any, Any] = {
        reading_types.BOOLEAN: True,
        reading_types.STRING: "ok",
        reading_types.JSON: {},
    }
    return others.get(reading.type)


def _within(reading: Reading, wanted: float) -> float:
    """Return *wanted*, or the nearest bound of the range of *reading*."""
    least, most = reading.range or (None, None)
    if least is not None and wanted < least:
        return least
    return most if most is not None and wanted > most else wanted


def _json(handover: Handover) -> str:
    return json.dumps(handover.values(), indent=2, ensure_ascii=False) + "\n"


def _variables(handover: Handover) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if handover.password:
        found = {
            "MQTT_HOST": handover.address.host,
            "MQTT_PORT": handover.address.port,
            "MQTT_TLS": int(handover.address.tls),
            "MQTT_CLIENT_ID": handover.client_id,
            "MQTT_USERNAME": handover.username,
            "MQTT_PASSWORD": handover.password,
        }
    if handover.api_key:
        found["API_KEY"] = handover.api_key
    return found | {f"TOPIC_{topic.name.upper()}": topic.whole for topic in handover.topics}


def _header(handover: Handover) -> str:
    values = _variables(handover) | {"MQTT_URI": handover.address.url}
    width = max(map(len, values))
    lines = [
        f"#define {name:{width}} {value if isinstance(value, int) else in_c(value)}"
        for name, value in values.items()
    ]
    return "\n".join(["#pragma once", "", *lines, ""])


def _program(handover: Handover, template: str, literal: Callable[[str], str], payload: str) -> str:
    """Return *template* with all texts as literals of its language. Each variable is a whole literal."""
    texts = {
        "json_file": f"{handover.file_name}.json",
        "env_file": f"./{handover.file_name}.env",
        "header_file": f"{handover.file_name}.h",
        "folder": f"./{handover.file_name}.mosquitto",
        "payload": payload,
        "data": handover.topic(MessageType.DATA),
        "cmd": handover.topic(MessageType.CMD),
    }
    context: dict[str, Any] = {name: literal(text) for name, text in texts.items()}
    context["tls"] = handover.address.tls
    context["is_mqtt5"] = settings.mqtt_version == "5"
    return render_to_string(f"devicehub/snippets/{template}.txt", context).strip() + "\n"
