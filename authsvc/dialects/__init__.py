"""The list of dialects. A new broker needs a module in this package and a line in this list."""

from authsvc.dialects import amqtt, emqx, emqx4, go_auth, jwt, nanomq, rabbitmq, vernemq
from authsvc.dialects.base import Dialect, Reply

NOT_HERE = Reply(404, b"")
DIALECTS = (
    go_auth.DIALECT,
    jwt.DIALECT,
    emqx.DIALECT,
    emqx4.DIALECT,
    nanomq.DIALECT,
    rabbitmq.DIALECT,
    vernemq.DIALECT,
    amqtt.DIALECT,
)
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}

# The dialects of other apps, which answer them at addresses of their own. Only a broker that names one may use it.
ELSEWHERE: dict[str, Dialect] = {}


def register(name: str) -> Dialect:
    """Add the dialect *name* of another app, whose requests present the token of a broker; return it."""
    found = ELSEWHERE.get(name)
    if found is None:
        found = ELSEWHERE[name] = Dialect(name, {}, lambda *_: NOT_HERE, lambda _: NOT_HERE, login="")
    return found
