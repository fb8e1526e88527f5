"""The SQL of bench/filling.py: the rows *first* to *last* of a table. Row n of both tables is one measurement.

The device follows from the number times a prime, so that neighbours in time are not neighbours in the fleet.
"""

_SQLITE = """
WITH RECURSIVE numbers (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}),
rows AS (SELECT n, 1 + n * 104729 % {fleet} AS device, n * {step!r} + {begin!r} AS moment,
  (n * 37 % 4500 - 1000) / 100.0 AS temperature, (200 + n * 13 % 750) / 10.0 AS humidity, n % 41 / 10.0 AS rainfall
  FROM numbers)
INSERT INTO {table} """

_SQLITE_TIME = "strftime('%Y-%m-%d %H:%M:%f', moment, 'unixepoch') || '000'"

SQLITE = {
    "fleet_weatherstationreading": _SQLITE
    + f"""(device_id, timestamp, received_at, temperature, humidity, rainfall)
SELECT device, {_SQLITE_TIME}, {_SQLITE_TIME}, temperature, humidity, rainfall FROM rows""",
    "fleet_weatherstationmessage": _SQLITE
    + f"""(device_id, topic, payload_json, content_type, correlation_id, user_properties, processing_status,
  processing_error, received_at, processed_at, digest, outcome, notes)
SELECT device, printf('things/weatherstation/STATION-%07d/data', device),
  printf('{{{{"timestamp":"%s+00:00","temperature":%.2f,"humidity":%.1f,"rainfall":%.1f}}}}',
    replace({_SQLITE_TIME}, ' ', 'T'), temperature, humidity, rainfall),
  '', '', '{{{{}}}}', 'completed', '', {_SQLITE_TIME}, {_SQLITE_TIME}, lower(hex(randomblob(32))), 'stored', '[]'
FROM rows""",
}

_POSTGRESQL = """
WITH rows AS (SELECT n, 1 + n * 104729 % {fleet} AS device, to_timestamp(n * {step!r} + {begin!r}) AS moment,
  (n * 37 % 4500 - 1000) / 100.0::float8 AS temperature, (200 + n * 13 % 750) / 10.0::float8 AS humidity,
  n % 41 / 10.0::float8 AS rainfall
  FROM generate_series({first}::bigint, {last}::bigint) AS n)
INSERT INTO {table} """

POSTGRESQL = {
    "fleet_weatherstationreading": _POSTGRESQL
    + """(device_id, timestamp, received_at, temperature, humidity, rainfall)
SELECT device, moment, moment, temperature, humidity, rainfall FROM rows ORDER BY n""",
    "fleet_weatherstationmessage": _POSTGRESQL
    + """(device_id, topic, payload_json, content_type, correlation_id, user_properties, processing_status,
  processing_error, received_at, processed_at, digest, outcome, notes)
SELECT device, 'things/weatherstation/STATION-' || lpad(device::text, 7, '0') || '/data',
  jsonb_build_object('timestamp', moment, 'temperature', temperature, 'humidity', humidity, 'rainfall', rainfall),
  '', '', '{{}}', 'completed', '', moment, moment, encode(sha256(int8send(n)), 'hex'), 'stored', '[]'
FROM rows ORDER BY n""",
}
