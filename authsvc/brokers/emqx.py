"""EMQX 5.7 and later."""

from __future__ import annotations

from authsvc.brokers.base import BrokerSoftware

# Only the client that a question is about waits for the answer. The time-out includes the wait for a free connection:
# 5 s allow a whole fleet to log in at once.
CONFIGURATION = """\
# emqx.conf, EMQX 5.7 and later (docs/how-to/emqx.md)
authentication = [{
  mechanism = password_based, backend = http, method = post
  url = "$url/mqtt/emqx/authn"
  headers { "content-type" = "application/json", authorization = "Bearer $token" }
  body { username = "$${username}", password = "$${password}", clientid = "$${clientid}" }
  enable_pipelining = 1, request_timeout = 5s
}]
authorization {
  no_match = deny
  sources = [{
    type = http, enable = true, method = post
    url = "$url/mqtt/emqx/authz"
    headers { "content-type" = "application/json", authorization = "Bearer $token" }
    body { username = "$${username}", clientid = "$${clientid}", action = "$${action}", topic = "$${topic}" }
    enable_pipelining = 1, request_timeout = 5s
  }]
}
authentication_settings.node_cache.enable = false
authorization.node_cache.enable = false
"""

BROKER = BrokerSoftware("emqx", "EMQX 5.7 and later", CONFIGURATION)
