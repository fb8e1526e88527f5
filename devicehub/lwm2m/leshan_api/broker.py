"""The Leshan bridge among the software that may present a token: it posts to this app, and asks no question."""

from __future__ import annotations

from authsvc import brokers
from authsvc.brokers.base import BrokerSoftware

# The bridge can send no header, so the token is a part of the address.
CONFIGURATION = """\
# bridge.env, the environment of the Leshan server with the bridge of flownexus
DATA_SENDER_URI=$url/k/$token
"""

SOFTWARE = BrokerSoftware("leshan", "Leshan with the bridge of flownexus", CONFIGURATION)
DIALECT = brokers.register(SOFTWARE)
