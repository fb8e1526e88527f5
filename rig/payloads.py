"""Payloads on a data topic, each with its outcome, and topics that are none of ours."""

from devicehub.messages.message import FailureReason
from rig.messages import EARLIER, HOUR, NOW, PARTIAL, STORED, case, failed, iso, row

FOUR = [{"type": "humidity", "value": 4}]
FORMS = {
    "flat": case(STORED, {"temperature": 25.3, "humidity": 40}, row(temperature=25.3, humidity=40.0)),
    "flat with a time": case(
        STORED, {"temperature": 25.3, "timestamp": iso(EARLIER)}, row(EARLIER, temperature=25.3)
    ),
    "white space around": case(STORED, b' \r\n\t{"temperature": 1}\n ', row(temperature=1.0)),
    "list": case(
        STORED,
        {"readings": [{"type": "temperature", "value": 1}, {"type": "humidity", "value": 2}]},
        row(temperature=1.0, humidity=2.0),
    ),
    "list with one time for all": case(
        STORED,
        {"timestamp": iso(EARLIER), "readings": [{"type": "temperature", "value": 1}]},
        row(EARLIER, temperature=1.0),
    ),
    "list with times of its own": case(
        STORED,
        {
            "timestamp": iso(EARLIER),
            "readings": [
                {"type": "temperature", "value": 1},
                {"type": "temperature", "value": 2, "timestamp": iso(EARLIER - HOUR)},
                {"type": "humidity", "value": 3},
            ],
        },
        row(EARLIER, temperature=1.0, humidity=3.0),
        row(EARLIER - HOUR, temperature=2.0),
    ),
    "list with entries that are none": case(
        PARTIAL,
        {"readings": [5, {"type": "temperature"}, {"value": 3}, {"type": 7, "value": 3}, None, *FOUR]},
        row(humidity=4.0),
        notes=["readings[0]", "readings[1]", "readings[2]", "readings[3]", "readings[4]"],
    ),
    "list and a value beside it": case(
        PARTIAL,
        {"temperature": 7, "readings": [{"type": "humidity", "value": 4}]},
        row(humidity=4.0),
        notes=["temperature"],
    ),
    "array of samples": case(
        STORED,
        [
            {"temperature": 1, "timestamp": iso(EARLIER)},
            {"temperature": 2, "timestamp": iso(EARLIER + HOUR / 2)},
        ],
        row(EARLIER, temperature=1.0),
        row(EARLIER + HOUR / 2, temperature=2.0),
    ),
    "array whose entries share a time": case(
        STORED,
        [{"temperature": 1, "timestamp": iso(EARLIER)}, {"humidity": 2, "timestamp": iso(EARLIER)}],
        row(EARLIER, temperature=1.0, humidity=2.0),
    ),
    "array that shares an instant written in two ways": case(
        STORED,
        [
            {"temperature": 1, "timestamp": "2026-03-01T11:00:00Z"},
            {"humidity": 2, "timestamp": "2026-03-01T13:00:00+02:00"},
            {"rainfall": 3, "timestamp": int(EARLIER.timestamp())},
        ],
        row(EARLIER, temperature=1.0, humidity=2.0, rainfall=3.0),
    ),
    "array without times": case(
        STORED, [{"temperature": 1}, {"humidity": 2}], row(temperature=1.0, humidity=2.0)
    ),
    "one name twice at one time": case(
        PARTIAL,
        [{"temperature": 1, "timestamp": iso(EARLIER)}, {"temperature": 2, "timestamp": iso(EARLIER)}],
        row(EARLIER, temperature=2.0),
        notes=["temperature: given twice"],
    ),
    "a null after a value at one time": case(
        STORED,
        [
            {"temperature": 1, "timestamp": iso(EARLIER)},
            {"temperature": None, "humidity": 2, "timestamp": iso(EARLIER)},
        ],
        row(EARLIER, temperature=1.0, humidity=2.0),
    ),
    "one sample of an array is bad": case(
        PARTIAL,
        [
            {"temperature": 999, "timestamp": iso(EARLIER)},
            {"temperature": 2, "timestamp": iso(EARLIER + HOUR / 2)},
        ],
        row(EARLIER + HOUR / 2, temperature=2.0),
        notes=["temperature: 999 is outside -40..80 Cel"],
    ),
    "unknown field": case(
        PARTIAL, {"temperature": 1, "wind": 3}, row(temperature=1.0), notes=["wind: not declared"]
    ),
    "names of columns": case(
        PARTIAL,
        {"temperature": 1, "device": 2, "device_id": 2, "id": 1, "pk": 1, "received_at": "x", "is_active": 0},
        row(temperature=1.0),
        notes=["device:", "device_id:", "id:", "pk:", "received_at:", "is_active:"],
    ),
    "names in other letters": case(
        PARTIAL, {"Temperature": 1, "humidity ": 2, "rainfall": 3}, row(rainfall=3.0)
    ),
    "null is absent": case(STORED, {"temperature": None, "humidity": 2}, row(humidity=2.0)),
    "all bad values but one": case(
        PARTIAL,
        {"temperature": "25", "humidity": True, "rainfall": 0},
        row(rainfall=0.0),
        notes=["temperature: is not a number", "humidity: is not a number"],
    ),
    "a NUL in an undeclared text": case(
        PARTIAL, {"temperature": 1, "x": "a\0b"}, row(temperature=1.0), notes=["x: not declared"]
    ),
    "a NUL in an undeclared name": case(
        PARTIAL, {"temperature": 1, "a\0b": 2}, row(temperature=1.0), notes=["not declared"]
    ),
    "a backslash before u0000": case(
        PARTIAL, b'{"temperature": 1, "x": "\\\\u0000"}', row(temperature=1.0), notes=["x: not declared"]
    ),
    "a name of 10,000 letters": case(
        PARTIAL, {"temperature": 1, "x" * 10_000: 2}, row(temperature=1.0), notes=["xxx"]
    ),
    "as deep as is read": case(
        PARTIAL, b'{"temperature": 1, "x": ' + b"[" * 99 + b"]" * 99 + b"}", row(temperature=1.0)
    ),
    "one level deeper": failed(
        b'{"temperature": 1, "x": ' + b"[" * 100 + b"]" * 100 + b"}", FailureReason.NOT_JSON
    ),
    "nothing but a time": failed({"timestamp": iso(EARLIER)}, FailureReason.NO_VALUE),
    "nothing": failed({}, FailureReason.NO_VALUE),
    "empty array": failed([], FailureReason.NO_VALUE),
    "array of nothing": failed([{}, {}], FailureReason.NO_VALUE),
    "empty list": failed({"readings": []}, FailureReason.NO_VALUE),
    "only null": failed({"temperature": None}, FailureReason.NO_VALUE),
    "only bad values": failed({"temperature": 999, "humidity": "x"}, FailureReason.NO_VALUE),
    "only unknown fields": failed({"wind": 1}, FailureReason.NO_VALUE),
    "only an unknown field with a NUL": failed({"wi\0nd": 1}, FailureReason.NO_VALUE),
    "a number": failed(25.3, FailureReason.NOT_A_READING),
    "a text": failed("online", FailureReason.NOT_A_READING),
    "null": failed(None, FailureReason.NOT_A_READING),
    "true": failed(True, FailureReason.NOT_A_READING),
    "array of numbers": failed([1, 2], FailureReason.NOT_A_READING),
    "array with one number": case(
        PARTIAL,
        [{"temperature": 1}, 2],
        row(temperature=1.0),
        notes=["entry 1: is a number or something else, not an object"],
    ),
    "array with one odd list": case(
        PARTIAL,
        [{"readings": 5}, {"temperature": 1}],
        row(temperature=1.0),
        notes=["entry 0: readings is a number or something else, not a list"],
    ),
    "array in an array": failed([[{"temperature": 1}]], FailureReason.NOT_A_READING),
    "readings is not a list": failed({"readings": {"temperature": 1}}, FailureReason.NOT_A_READING),
    "readings is not a list, and a value beside it": case(
        PARTIAL,
        {"readings": 5, "temperature": 1},
        row(temperature=1.0),
        notes=["readings is a number or something else, not a list"],
    ),
    "readings is null": case(STORED, {"readings": None, "temperature": 1}, row(temperature=1.0)),
    "readings is null and alone": failed({"readings": None}, FailureReason.NO_VALUE),
    "a null beside readings": case(STORED, {"x": None, "readings": FOUR}, row(humidity=4.0)),
    "no time, and the time of receipt": case(
        STORED,
        [{"temperature": 1}, {"humidity": 2, "timestamp": iso(NOW)}],
        row(temperature=1.0, humidity=2.0),
    ),
    "empty body": failed(b"", FailureReason.NOT_JSON),
    "white space only": failed(b" \n", FailureReason.NOT_JSON),
    "text": failed(b"temperature=25", FailureReason.NOT_JSON),
    "half a document": failed(b'{"temperature": 25', FailureReason.NOT_JSON),
    "two documents": failed(b'{"temperature": 1}{"temperature": 2}', FailureReason.NOT_JSON),
    "single quotes": failed(b"{'temperature': 1}", FailureReason.NOT_JSON),
    "a comma too many": failed(b'{"temperature": 1,}', FailureReason.NOT_JSON),
    "byte order mark": case(STORED, b'\xef\xbb\xbf{"temperature": 1}', row(temperature=1.0)),
    "UTF-16": failed('{"temperature": 1}'.encode("utf-16"), FailureReason.NOT_JSON),
    "not UTF-8": failed(b'{"temperature": 1, "x": "\xff"}', FailureReason.NOT_JSON),
    "an over-long NUL": failed(b'{"temperature": 1, "x": "\xc0\x80"}', FailureReason.NOT_JSON),
    "a surrogate in UTF-8": failed(b'{"temperature": 1, "x": "\xed\xa0\x80"}', FailureReason.NOT_JSON),
    "a raw NUL": failed(b'{"temperature": 1, "x": "a\x00b"}', FailureReason.NOT_JSON),
    "a NUL behind it": failed(b'{"temperature": 1}\x00', FailureReason.NOT_JSON),
    "NaN": failed(b'{"temperature": NaN}', FailureReason.NO_VALUE),
    "Infinity": failed(b'{"temperature": -Infinity}', FailureReason.NO_VALUE),
    "1e400": case(
        PARTIAL,
        b'{"temperature": 1e400, "humidity": 2}',
        row(humidity=2.0),
        notes=["temperature: is not a finite number"],
    ),
    "5,000 digits": failed(b'{"temperature": ' + b"1" * 5000 + b"}", FailureReason.NO_VALUE),
    "a lone surrogate": case(PARTIAL, b'{"temperature": 1, "x": "\\ud800"}', row(temperature=1.0)),
    "binary": failed(bytes(range(256)), FailureReason.NOT_JSON),
    "nested beyond every limit": failed(b"[" * 100_000, FailureReason.NOT_JSON),
    "nested and closed": failed(b"[" * 5000 + b"]" * 5000, FailureReason.NOT_JSON),
}


# --- Topics and devices

UNKNOWN_TOPICS = [
    "",
    "/",
    "data",
    "things/weatherstation/STATION-001",
    "things/weatherstation/STATION-001/data/",
    "things/weatherstation/STATION-001/data/x",
    "/things/weatherstation/STATION-001/data",
    "things//STATION-001/data",
    "things/weatherstation//data",
    "Things/weatherstation/STATION-001/data",
    "things/WeatherStation/STATION-001/data",
    "things/weatherstation/STATION-001/DATA",
    "things/weatherstation/STATION-001/telemetry",
    "things/weatherstation/STATION-001 /data",
    "things/weatherstation/+/data",
    "things/weatherstation/STATION-001/#",
    "things/weatherstation/STATION-001\0/data",
    "things/weatherstation/STATION-001/data\n",
    "things/windmill/STATION-001/data",
    "$share/x/things/weatherstation/STATION-001/data",
    "$SYS/broker/uptime",
    "things/weatherstation/ST\udc80/data",
    "x/" * 30_000,
]
