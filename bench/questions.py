"""Questions of a broker as the bytes that go over the wire, in mosquitto-go-auth's words; scripts of wrk."""

from __future__ import annotations

import json

from bench.serving import Device

PUBLISH = 2
IN_TURN = """\
local requests = {{{requests}}}
local last = 0
function request()
  last = last % #requests + 1
  return requests[last]
end
"""
AT_RANDOM = """\
local parts = {{{parts}}}
math.randomseed({seed})
function request()
  return table.concat(parts, string.format("{template}", math.random({count})))
end
"""


def login(token: str, device: Device) -> str:
    return _post("user", token, device, password=device.password)


def acl(token: str, device: Device) -> str:
    """May it publish on its own topic?"""
    return _post("acl", token, device, acc=PUBLISH, topic=device.topic)


QUESTIONS = {"login": login, "acl": acl}


def _post(question: str, token: str, device: Device, **fields: object) -> str:
    body = json.dumps({"clientid": device.device_id, "username": device.username, **fields})
    return (
        f"POST /mqtt/go-auth/{question}?k={token} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def in_turn(requests: list[str]) -> str:
    """A script that sends *requests* over and over. All text is there before wrk starts its clock."""
    return IN_TURN.format(requests=", ".join(map(json.dumps, requests)))


def at_random(request: str, device_id: str, template: str, count: int, seed: int) -> str:
    """A script that sends *request* for devices 1 to *count* at random, by *template*, in place of *device_id*."""
    parts = ", ".join(map(json.dumps, request.split(device_id)))
    return AT_RANDOM.format(parts=parts, seed=seed, template=template, count=count)
