"""`gunicorn -c config/gunicorn.conf.py config.asgi:application` serves everything."""

from gunicorn.workers.base import Worker

worker_class = "asgi"
asgi_lifespan = "on"
http_parser = "auto"
keepalive = 75  # brokers pool connections; go-auth's client takes one that just closed for an error
graceful_timeout = 10
control_socket_disable = True
accesslog = None  # a caller's token may stand in a path or a query
errorlog = "-"
loglevel = "warning"


def post_fork(_server: object, worker: Worker) -> None:
    """Idle broker connections would hold a stopping worker until it is killed; it lets go of them after 2 s."""
    worker.cfg.set("graceful_timeout", 2)
