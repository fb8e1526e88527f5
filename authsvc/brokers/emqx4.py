"""EMQX 4.3 and 4.4."""

from __future__ import annotations

from authsvc.brokers.base import BrokerSoftware

# Only the client that a question is about waits for the answer. The time-out includes the wait for a free connection:
# 5 s allow a whole fleet to log in at once.
CONFIGURATION = """\
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
"""

BROKER = BrokerSoftware("emqx4", "EMQX 4.3 and 4.4", CONFIGURATION)
