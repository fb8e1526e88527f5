"""Mosquitto with mosquitto-go-auth 3.0. Two backends of the plugin ask this service, each in its own dialect."""

from __future__ import annotations

from collections.abc import Mapping

from authsvc.brokers.base import Address, BrokerSoftware

# Mosquitto asks in its only network thread, so all its clients wait for the answer, for 1 s at most.
CONFIGURATION = """\
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
auth_opt_http_timeout 1$tls
"""

# In JWT remote mode clients log in with a token as their username.
CONFIGURATION_JWT = """\
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
auth_opt_jwt_http_timeout 1$tls
"""

# All backends of the plugin share its cache. It reads 0 as 60 s. A refreshed entry would not expire while its client is
# busy.
CACHE = """\
# The plugin's cache answers in place of the service (docs/how-to/mosquitto.md, "The cache of the plugin"):
# - changes, also revocations, take up to $seconds s to apply to a connected client;
# - for 1 s after a login its username and password are accepted with any client id,
#   even if the service is stopped;
# - for 1 s after its own login a client a-b can log in as the client a,
#   so no username may begin with another one and "-".
auth_opt_cache true
auth_opt_cache_refresh false
auth_opt_auth_cache_seconds 1
auth_opt_acl_cache_seconds $seconds
"""

TLS = """
auth_opt_http_with_tls true
auth_opt_http_verify_peer true"""
TLS_JWT = """
auth_opt_jwt_with_tls true
auth_opt_jwt_verify_peer true"""


def _http(address: Address) -> Mapping[str, str]:
    return {"tls": TLS if address.is_tls else ""}


def _jwt(address: Address) -> Mapping[str, str]:
    # The plugin adds no port to a host with a colon.
    host = f"{address.host}:{address.port}" if ":" in address.host else address.host
    return {"jwt_host": host, "tls": TLS_JWT if address.is_tls else ""}


BROKER = BrokerSoftware(
    "go-auth", "Mosquitto with mosquitto-go-auth", CONFIGURATION, cache=CACHE, placeholders=_http
)
BROKER_JWT = BrokerSoftware(
    "jwt",
    "Mosquitto with mosquitto-go-auth, for clients with tokens (JWT)",
    CONFIGURATION_JWT,
    cache=CACHE,
    placeholders=_jwt,
)
