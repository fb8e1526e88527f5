"""`gunicorn -c config/gunicorn.conf.py config.asgi:application` serves everything; the package holds the settings."""

from authsvc.gunicorn import *  # noqa: F403 - gunicorn reads the settings as names of this file
