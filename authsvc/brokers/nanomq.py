"""NanoMQ 0.21.9 and later."""

from __future__ import annotations

from authsvc.brokers.base import BrokerSoftware

# NanoMQ holds a lock while it waits for an answer, so all its clients wait, for 1 s at most.
CONFIGURATION = """\
# nanomq.conf, NanoMQ 0.21.9 and later; up to 0.25.3 publishes dead-lock it (docs/how-to/nanomq.md)
auth {
  allow_anonymous = false
  no_match = deny
  deny_action = disconnect
  http_auth = {
    auth_req {
      url = "$url/mqtt/nanomq/auth"
      method = "POST"
      headers.content-type = "application/json"
      headers.x-broker-secret = "$token"
      params = {clientid = "%c", username = "%u", password = "%P"}
    }
    acl_req {
      url = "$url/mqtt/nanomq/acl"
      method = "POST"
      headers.content-type = "application/json"
      headers.x-broker-secret = "$token"
      params = {clientid = "%c", username = "%u", access = "%A", topic = "%t"}
    }
    timeout = 1s
    connect_timeout = 1s
    pool_size = 32
  }
}
"""

BROKER = BrokerSoftware("nanomq", "NanoMQ", CONFIGURATION)
