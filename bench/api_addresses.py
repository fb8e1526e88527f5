"""The addresses that `script/bench api` requests. A new route of the API gets a line here.

In braces stand the names of objects, of which each request takes the next: `{station}`, `{dense}`, `{commanded}` and
`{endpoint}` are device ids that the filling chose; the others are found in a list of the API, as FOUND says.
"""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """A path with its query, and its name in reports."""

    name: str
    path: str


class Found(NamedTuple):
    """The list of the API in which objects are found, and the member of a row that names one."""

    path: str
    member: str


FOUND = {
    "account": Found("/api/accounts/", "username"),
    "broker": Found("/api/brokers/", "id"),
    "command": Found("/api/devices/weatherstation/{commanded}/commands/", "id"),
    "denial": Found("/api/denials/", "id"),
    "entry": Found("/api/audit/", "id"),
    "event": Found("/api/lwm2m/events/", "id"),
    "grant": Found("/api/grants/", "id"),
    "key": Found("/api/keys/", "id"),
    "message": Found("/api/quarantine/", "id"),
}

STATION = "/api/devices/weatherstation/{station}"
DENSE = "/api/devices/weatherstation/{dense}"
ENDPOINT = "/api/lwm2m/endpoints/{endpoint}"

ADDRESSES = (
    Address("index", "/api/"),
    Address("types", "/api/types/"),
    Address("a type", "/api/types/weatherstation/"),
    Address("devices", "/api/devices/"),
    Address("devices of a type", "/api/devices/?type=weatherstation"),
    Address("devices, 200 of a page", "/api/devices/?limit=200"),
    Address("a device", f"{STATION}/"),
    Address("newest values", f"{STATION}/latest/"),
    Address("readings, rows", f"{STATION}/readings/"),
    Address("readings, newest rows of many", f"{DENSE}/readings/?order=desc"),
    Address("readings, 1,000 rows", f"{DENSE}/readings/?limit=1000"),
    Address("readings, hours", f"{STATION}/readings/?interval=hour"),
    Address("readings, days", f"{STATION}/readings/?interval=day"),
    Address("readings, hours not rolled up", f"{DENSE}/readings/?interval=hour&fields=temperature&limit=200"),
    Address("messages", f"{STATION}/messages/"),
    Address("commands", f"{STATION}/commands/"),
    Address("a command", "/api/devices/weatherstation/{commanded}/commands/{command}/"),
    Address("access", f"{STATION}/access/?action=publish&topic=things/weatherstation/{{station}}/data"),
    Address("accounts", "/api/accounts/"),
    Address("an account", "/api/accounts/{account}/"),
    Address("audit", "/api/audit/"),
    Address("an entry of the audit", "/api/audit/{entry}/"),
    Address("brokers", "/api/brokers/"),
    Address("a broker", "/api/brokers/{broker}/"),
    Address("denials", "/api/denials/"),
    Address("a denial", "/api/denials/{denial}/"),
    Address("grants", "/api/grants/"),
    Address("a grant", "/api/grants/{grant}/"),
    Address("keys", "/api/keys/"),
    Address("a key", "/api/keys/{key}/"),
    Address("quarantine", "/api/quarantine/"),
    Address("a message in quarantine", "/api/quarantine/{message}/"),
    Address("LwM2M objects", "/api/lwm2m/objects/"),
    Address("an LwM2M object", "/api/lwm2m/objects/3303/"),
    Address("LwM2M endpoints", "/api/lwm2m/endpoints/"),
    Address("an LwM2M endpoint", f"{ENDPOINT}/"),
    Address("LwM2M resources", f"{ENDPOINT}/resources/"),
    Address("LwM2M history", f"{ENDPOINT}/history/?path=3303/0/5700"),
    Address("LwM2M newest values", "/api/devices/lwm2m/{endpoint}/latest/"),
    Address("LwM2M readings", "/api/devices/lwm2m/{endpoint}/readings/?fields=3303/0/5700"),
    Address("LwM2M events", "/api/lwm2m/events/"),
    Address("an LwM2M event", "/api/lwm2m/events/{event}/"),
)
