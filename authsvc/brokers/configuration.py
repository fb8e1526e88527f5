"""The configuration that each broker needs to ask here, ready to paste."""

from __future__ import annotations

from datetime import timedelta
from string import Template
from urllib.parse import urlsplit

# A blank line parts the files of one broker; each file begins with a comment that names it.
#
# A broker waits 1 s for an answer where all its clients wait with the one that asked: mosquitto asks on its only
# network thread, and NanoMQ under a lock. Elsewhere only clients that ask wait, the time for a free connection
# included, so 5 s let a whole fleet log in at once. VerneMQ waits 5 s by default.
TEMPLATES = {
    "go-auth": """\
# mosquitto.conf, with mosquitto-go-auth 3.0 (see mosquitto/ and docs/how-to/mosquitto.md)
listener 1883
allow_anonymous false
check_retain_source true
auth_plugin /mosquitto/go-auth.so
auth_opt_log_level info
auth_opt_backends http
auth_opt_retry_count 1
auth_opt_disable_superuser true
auth_opt_http_register user,acl
auth_opt_http_host devicehub:$token@$host
auth_opt_http_port $port
auth_opt_http_method POST
auth_opt_http_params_mode json
auth_opt_http_response_mode json
auth_opt_http_getuser_uri $path/mqtt/go-auth/user
auth_opt_http_aclcheck_uri $path/mqtt/go-auth/acl
auth_opt_http_timeout 1$tls_go_auth
""",
    "emqx": """\
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
""",
    "jwt": """\
# mosquitto.conf, with mosquitto-go-auth 3.0 in JWT remote mode: clients log in with a token as their username
listener 1883
allow_anonymous false
check_retain_source true
auth_plugin /mosquitto/go-auth.so
auth_opt_log_level info
auth_opt_backends jwt
auth_opt_retry_count 1
auth_opt_disable_superuser true
auth_opt_jwt_mode remote
auth_opt_jwt_host $jwt_host
auth_opt_jwt_port $port
auth_opt_jwt_getuser_uri $path/mqtt/jwt/user?k=$token
auth_opt_jwt_aclcheck_uri $path/mqtt/jwt/acl?k=$token
auth_opt_jwt_params_mode json
auth_opt_jwt_response_mode json
auth_opt_jwt_http_timeout 1$tls_jwt
""",
    "emqx4": """\
## emqx.conf, EMQX 4.3 and 4.4
allow_anonymous = false
acl_nomatch = deny
acl_deny_action = ignore

## plugins/emqx_auth_http.conf
auth.http.auth_req.url = $url/mqtt/emqx4/auth
auth.http.auth_req.method = post
auth.http.auth_req.headers.content-type = application/x-www-form-urlencoded
auth.http.auth_req.headers.authorization = Bearer $token
auth.http.auth_req.params = clientid=%c,username=%u,password=%P
auth.http.acl_req.url = $url/mqtt/emqx4/acl
auth.http.acl_req.method = post
auth.http.acl_req.headers.content-type = application/x-www-form-urlencoded
auth.http.acl_req.headers.authorization = Bearer $token
auth.http.acl_req.params = access=%A,username=%u,clientid=%c,topic=%t
auth.http.timeout = 5s
auth.http.connect_timeout = 5s
""",
    "nanomq": """\
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
""",
    "vernemq": """\
# vernemq.conf, VerneMQ 1.12 and later
allow_anonymous = off
plugins.vmq_passwd = off
plugins.vmq_acl = off
plugins.vmq_webhooks = on
vmq_webhooks.w1.hook = auth_on_register
vmq_webhooks.w1.endpoint = $url/mqtt/k/$token/vernemq/register
vmq_webhooks.w2.hook = auth_on_publish
vmq_webhooks.w2.endpoint = $url/mqtt/k/$token/vernemq/publish
vmq_webhooks.w2.no_payload = on
vmq_webhooks.w3.hook = auth_on_subscribe
vmq_webhooks.w3.endpoint = $url/mqtt/k/$token/vernemq/subscribe
vmq_webhooks.w4.hook = auth_on_register_m5
vmq_webhooks.w4.endpoint = $url/mqtt/k/$token/vernemq/register
vmq_webhooks.w5.hook = auth_on_publish_m5
vmq_webhooks.w5.endpoint = $url/mqtt/k/$token/vernemq/publish
vmq_webhooks.w5.no_payload = on
vmq_webhooks.w6.hook = auth_on_subscribe_m5
vmq_webhooks.w6.endpoint = $url/mqtt/k/$token/vernemq/subscribe
""",
    "rabbitmq": """\
# rabbitmq.conf, with the plugins rabbitmq_mqtt and rabbitmq_auth_backend_http (docs/how-to/rabbitmq.md)
auth_backends.1 = http
auth_http.http_method = post
auth_http.user_path = $url/mqtt/rabbitmq/user?k=$token
auth_http.vhost_path = $url/mqtt/rabbitmq/vhost?k=$token
auth_http.resource_path = $url/mqtt/rabbitmq/resource?k=$token
auth_http.topic_path = $url/mqtt/rabbitmq/topic?k=$token
auth_http.request_timeout = 5000
auth_http.connection_timeout = 5000
mqtt.listeners.tcp.default = 1883
mqtt.allow_anonymous = false
mqtt.vhost = /
mqtt.exchange = amq.topic

% advanced.config, a second file in the folder of rabbitmq.conf
[{rabbitmq_mqtt, [{ignore_colons_in_username, true}]}].
""",
    "amqtt": """\
# aMQTT is for development: it checks no wills. It speaks MQTT 3.1.1 and no shared subscriptions, so
# listen_mqtt needs DEVICEHUB_MQTT_VERSION=3.1.1 DEVICEHUB_MQTT_GROUP= beside it.
AUTHSVC_TOKEN=$token python manage.py run_dev_broker --auth-url $url
""",
}

CACHING = ("go-auth", "jwt")  # the dialects of mosquitto-go-auth, which has a cache for all its backends
# The plugin takes 0 for 60 s, and a refreshed entry would live for as long as its client is busy.
CACHE = """\
# The plugin's cache answers in place of the service (docs/how-to/mosquitto.md, "The cache of the plugin"):
# - what you change, a revocation too, is up to $seconds s late for a connected client;
# - for 1 s after a good login its username and password get in under any client id,
#   also while the service is stopped;
# - for 1 s after its own login a client a-b can log in as the client a,
#   so no username may begin with another one and "-".
auth_opt_cache true
auth_opt_cache_refresh false
auth_opt_auth_cache_seconds 1
auth_opt_acl_cache_seconds $seconds
"""


def configuration(dialect: str, url: str, token: str, cache: timedelta | None = None) -> str:
    """Return the configuration of a broker of *dialect* that reaches this service at *url*.

    With *cache* the plugin keeps answers about topics that long; only a dialect of CACHING can.
    Raises KeyError for an unknown dialect.
    """
    parts = urlsplit(url)
    text = TEMPLATES[dialect] + (CACHE if cache else "")
    host = parts.hostname or "localhost"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if ":" in host:  # IPv6; without brackets the plugin cannot read its URL, and logs it with the token
        host = f"[{host}]"
    return Template(text).substitute(
        seconds=int(cache.total_seconds()) if cache else "",
        url=url.rstrip("/"),
        path=parts.path.rstrip("/"),
        host=host,
        jwt_host=f"{host}:{port}" if ":" in host else host,  # the plugin adds no port to a host with a colon
        port=port,
        token=token,
        tls_jwt="\nauth_opt_jwt_with_tls true\nauth_opt_jwt_verify_peer true"
        if parts.scheme == "https"
        else "",
        tls_go_auth="\nauth_opt_http_with_tls true\nauth_opt_http_verify_peer true"
        if parts.scheme == "https"
        else "",
    )
