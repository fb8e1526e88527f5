"""VerneMQ 1.12 and later."""

from __future__ import annotations

from authsvc.brokers.base import BrokerSoftware

# VerneMQ waits 5 s for an answer by default.
CONFIGURATION = """\
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
"""

BROKER = BrokerSoftware("vernemq", "VerneMQ", CONFIGURATION)
