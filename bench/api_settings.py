"""The settings of the server of `script/bench api`: those of the project, and a bare view as the reference."""

from config.settings import *  # noqa: F403

ROOT_URLCONF = "bench.api_urls"
ALLOWED_HOSTS = ["127.0.0.1"]
SECURE_SSL_REDIRECT = False
DEVICEHUB_API_RATE = ""  # One key sends all requests.
