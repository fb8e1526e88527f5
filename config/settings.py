"""The Django settings. An operator's options come from the environment; see docs/reference/settings.md."""

from __future__ import annotations

import json
import os
import warnings
from argparse import ArgumentTypeError
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import environ
import structlog
from django.core.exceptions import ImproperlyConfigured
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from authsvc.core.tokens import MIN_KEY_BYTES
from authsvc.durations import duration
from authsvc.operation.deployment import LOOPBACK
from devicehub.unfold import UNFOLD as UNFOLD

BASE_DIR = Path(__file__).resolve().parent.parent

TRUE, FALSE = ("1", "true", "on", "yes", "y", "ok"), ("0", "false", "off", "no", "n")
UNREADABLE_DATABASE = (
    "DATABASE_URL cannot be read; write postgres://user:password@host:5432/name or "
    "sqlite:///relative/or//absolute/path. "
    "Percent-encode / ? # @ : [ ] and % in the user name and the password: / is %2F, # is %23"
)


def text(name: str, default: str) -> str:
    """Return the text of the environment variable *name*, or *default*."""
    return os.environ.get(name, default)


def texts(name: str, default: list[str]) -> list[str]:
    """Return the list in the environment variable *name*, separated by commas; empty entries do not count."""
    found = os.environ.get(name)
    return default if found is None else [entry.strip() for entry in found.split(",") if entry.strip()]


def pairs(name: str) -> dict[str, str]:
    """Return the pairs in the environment variable *name*, as `a=1,b=2`."""
    found = (entry.partition("=") for entry in texts(name, default=[]))
    return {key.strip(): value.strip() for key, _, value in found}


def flag(name: str, default: bool) -> bool:
    """Return the boolean in the environment variable *name*, one of TRUE or FALSE in any case; empty means not set.

    Raise ImproperlyConfigured for another text: a misspelt yes must not switch something off.
    """
    found = os.environ.get(name, "").strip().lower()
    if found and found not in TRUE + FALSE:
        raise ImproperlyConfigured(f"{name} is {found!r}; write 1 or 0")
    return found in TRUE if found else default


def secret(name: str, default: str | None = None) -> str:
    """Return the secret *name*, or the text of the file that NAME_FILE names.

    Raise ImproperlyConfigured if the file cannot be read, or if neither is set and there is no default.
    """
    if file := os.environ.get(f"{name}_FILE"):
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE: {file} cannot be read ({error.strerror})") from error
        except UnicodeDecodeError:
            raise ImproperlyConfigured(f"{name}_FILE: {file} is not UTF-8 text") from None
    value = os.environ.get(name, default)
    if not value and default is None:
        raise ImproperlyConfigured(f"Set {name}, or {name}_FILE to the path of a file that holds it")
    return value or ""


def private_folder(path: Path) -> None:
    """Make the folder *path* and its missing parents, for their owner alone."""
    for folder in reversed((path, *path.parents)):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)


def database(url: str) -> dict[str, Any]:
    """Return *url* as an entry of DATABASES; SQLite durable and private, relative paths from the project folder.

    Raise ImproperlyConfigured, which repeats nothing of *url*: it may hold a password.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # The parser warns of a part of a SQLite URL that it ignores.
            config: dict[str, Any] = environ.Env.db_url_config(url)
        parts = urlsplit(url)
        # A / or ? in a password ends the host early, and the part before it is taken for host and port.
        readable = config["ENGINE"].endswith("sqlite3") or "@" not in parts.path + parts.query
    except (ValueError, KeyError, Warning):
        readable = False
    if not readable:  # Raised here, because a traceback shows the text of an error that is being handled.
        raise ImproperlyConfigured(UNREADABLE_DATABASE)
    if config["ENGINE"] != "django.db.backends.sqlite3":
        return config
    if config["NAME"] in ("", ":memory:"):
        raise ImproperlyConfigured("DATABASE_URL names no file; write sqlite:///relative/or//absolute/path")
    path = BASE_DIR / config["NAME"]
    private_folder(path.parent)
    os.close(os.open(path, os.O_CREAT, 0o600))
    options = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
    return config | {"NAME": str(path), "OPTIONS": options}


def dsn(value: str) -> str:
    """Return AUTHSVC_LISTEN_DSN unchanged. Raise ImproperlyConfigured, without the value, if it cannot be read."""
    try:
        found = conninfo_to_dict(value)
        # A / in a password ends the host early, as in DATABASE_URL; libpq would show the rest as a wrong port.
        ports = str(found.get("port", "")).replace(",", "")
        readable = "@" not in str(found.get("dbname", "")) and (ports.isdecimal() or not ports)
    except ProgrammingError:
        readable = False
    if not readable:
        raise ImproperlyConfigured(
            "AUTHSVC_LISTEN_DSN cannot be read; write postgres://user:password@host:5432/name, percent-encoded"
        )
    return value


def keys(value: str) -> dict[str, str] | None:
    """Return the keys in AUTHSVC_JWT_KEYS, a JSON object, by id; None if it is empty. Raise ImproperlyConfigured."""
    if not value:
        return None
    try:
        found = json.loads(value)
    except ValueError as error:
        raise ImproperlyConfigured('AUTHSVC_JWT_KEYS is not JSON; write {"2026-11": "..."}') from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found.values()):
        raise ImproperlyConfigured('AUTHSVC_JWT_KEYS is not an object of texts; write {"2026-11": "..."}')
    return found


def mail(url: str) -> dict[str, Any]:
    """Return *url* as the EMAIL settings; without one, no mail is sent. Raise ImproperlyConfigured, without the URL.

    It may hold a password, percent-encoded.
    """
    ports = {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465}
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if url and (parts.scheme not in ports or not parts.hostname):
        raise ImproperlyConfigured(
            "EMAIL_URL cannot be read; write smtp+tls://user:password@mail.example.org:587, or smtp+ssl:// for port 465"
        )
    backend = "smtp" if url else "dummy"
    return {
        "EMAIL_BACKEND": f"django.core.mail.backends.{backend}.EmailBackend",
        "EMAIL_HOST": parts.hostname or "",
        "EMAIL_PORT": port or ports.get(parts.scheme, 25),
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_TLS": parts.scheme == "smtp+tls",
        "EMAIL_USE_SSL": parts.scheme == "smtp+ssl",
        "EMAIL_TIMEOUT": 10,
        "DEVICEHUB_PASSWORD_RESET": bool(url),
    }


def seconds(name: str, default: str) -> int:
    """Return the seconds of the duration in the environment variable *name*, such as 90s, 15m, 1h, 2d.

    Raise ImproperlyConfigured.
    """
    try:
        return int(duration(text(name, default)).total_seconds())
    except ArgumentTypeError as error:
        raise ImproperlyConfigured(f"{name}: {error}") from error


def number(name: str, default: int) -> int:
    """Return the whole number in the environment variable *name*. Raise ImproperlyConfigured."""
    found = text(name, str(default))
    try:
        return int(found)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} is {found!r}; write a whole number, such as {default}") from error


def secret_key(*, debug: bool) -> str:
    """Return SECRET_KEY, which signs sessions and tokens. Raise ImproperlyConfigured if it is short, unless *debug*."""
    key = secret("SECRET_KEY")
    length = len(key.encode())
    if length < MIN_KEY_BYTES and not debug:
        raise ImproperlyConfigured(
            f"SECRET_KEY has {length} byte{'' if length == 1 else 's'} and needs at least {MIN_KEY_BYTES} random "
            'ones; make one with: python3 -c "import secrets; print(secrets.token_urlsafe(50))"'
        )
    return key


DEBUG = flag("DEBUG", default=False)
SECRET_KEY = secret_key(debug=DEBUG)
ALLOWED_HOSTS = texts("ALLOWED_HOSTS", default=sorted(LOOPBACK - {"::1"}))

INSTALLED_APPS = [
    # Before devicehub, whose admin takes their pages out: a list of keys would be one to search.
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "fleet",
    "devicehub.lwm2m",
    "devicehub",
    "authsvc",
    "axes",
    "drf_spectacular_sidecar",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "devicehub.dashboard.policy.content_policy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "devicehub.dashboard.sign_in.Sessions",
    "devicehub.actors.note_actor",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": database(secret("DATABASE_URL", "sqlite:///var/devicehub.sqlite3"))}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
# django-axes counts failed sign-ins in a table of its own, by the rules in devicehub.logins.
AUTHENTICATION_BACKENDS = ["devicehub.logins.Backend"]
AXES_HANDLER = "devicehub.logins.Handler"
AXES_CLIENT_IP_CALLABLE = "devicehub.logins.address"
AXES_USERNAME_CALLABLE = "devicehub.logins.name"
AXES_LOCKOUT_CALLABLE = "devicehub.dashboard.lockout.page"
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# The second factor: the name in an authenticator app, and no key of one in the admin.
OTP_TOTP_ISSUER = "DeviceHub"
OTP_ADMIN_HIDE_SENSITIVE_DATA = True

LOGIN_URL = "devicehub:login"
LOGIN_REDIRECT_URL = "devicehub:overview"
LOGOUT_REDIRECT_URL = "devicehub:login"
CSRF_FAILURE_VIEW = "devicehub.dashboard.errors.csrf_failed"

# With a mail server, the sign-in offers a link for a new password.
globals().update(mail(secret("EMAIL_URL", "")))
DEFAULT_FROM_EMAIL = text("DEFAULT_FROM_EMAIL", default="devicehub@localhost")
PASSWORD_RESET_TIMEOUT = 3600

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
FORMAT_MODULE_PATH = "devicehub.formats"  # times with seconds

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "var" / "static"
private_folder(STATIC_ROOT)  # whitenoise warns of a missing folder.
WHITENOISE_USE_FINDERS = True  # The files of the apps are served as they are; `collectstatic` is not needed.

# https is on as soon as the site has a name that is not this machine's own.
_https_default = not DEBUG and not set(ALLOWED_HOSTS) <= LOOPBACK
DEVICEHUB_HTTPS = flag("DEVICEHUB_HTTPS", default=_https_default)
SECURE_SSL_REDIRECT = DEVICEHUB_HTTPS
# Brokers follow redirects, and a redirect to a page with status 200 would admit every client.
# The bridge of a Leshan server follows none, and what it cannot send is lost.
# The API refuses http itself: a client that follows a redirect would send its key in clear text every time.
SECURE_REDIRECT_EXEMPT = [r"^mqtt/", r"^api(/|$)", r"^(k/[^/]+/)?leshan_api/", r"^(healthz|readyz|metrics)$"]
SECURE_HSTS_SECONDS = 31_536_000 if DEVICEHUB_HTTPS else 0
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = DEVICEHUB_HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if flag("BEHIND_PROXY", default=False) else None
TRUSTED_PROXIES = texts("TRUSTED_PROXIES", default=[])
X_FRAME_OPTIONS = "DENY"
# Subdomains and the browsers' preload list are for the operator of the domain to decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]

AUTHSVC_DIRECTORIES = texts(
    "AUTHSVC_DIRECTORIES",
    default=["devicehub.directory.DeviceDirectory", "authsvc.directory.AccountDirectory"],
)
AUTHSVC_URL = text("AUTHSVC_URL", default="")
AUTHSVC_CLIENT_ID = text("AUTHSVC_CLIENT_ID", default="bound")
AUTHSVC_EMQX_RULES_TTL = seconds("AUTHSVC_EMQX_RULES_TTL", default="1h")
AUTHSVC_RABBITMQ_VHOST = text("AUTHSVC_RABBITMQ_VHOST", default="/")
AUTHSVC_RABBITMQ_EXCHANGE = text("AUTHSVC_RABBITMQ_EXCHANGE", default="amq.topic")

AUTHSVC_JWT_KEYS = keys(secret("AUTHSVC_JWT_KEYS", ""))
AUTHSVC_UPGRADE_HASHES = flag("AUTHSVC_UPGRADE_HASHES", default=False)
AUTHSVC_KEEP_AUDIT = text("AUTHSVC_KEEP_AUDIT", default="730d")
AUTHSVC_STALE_SECONDS = number("AUTHSVC_STALE_SECONDS", default=300)
AUTHSVC_CACHE_SIZE = number("AUTHSVC_CACHE_SIZE", default=20_000)
AUTHSVC_MAX_BODY = DATA_UPLOAD_MAX_MEMORY_SIZE = number("AUTHSVC_MAX_BODY", default=2_621_440)
AUTHSVC_LISTEN_DSN = dsn(secret("AUTHSVC_LISTEN_DSN", ""))

MQTT_URL = secret("MQTT_URL", "mqtt://127.0.0.1:1883")
DEVICEHUB_DEVICE_URL = text("DEVICEHUB_DEVICE_URL", default="")
DEVICEHUB_TOPIC_PREFIX = text("DEVICEHUB_TOPIC_PREFIX", default="things")
DEVICEHUB_MQTT_VERSION = text("DEVICEHUB_MQTT_VERSION", default="5")
DEVICEHUB_API_RATE = text("DEVICEHUB_API_RATE", default="6000/m")
DEVICEHUB_MAX_SAMPLES = number("DEVICEHUB_MAX_SAMPLES", default=10_000)
DEVICEHUB_RATE_LIMIT = text("DEVICEHUB_RATE_LIMIT", default="")
DEVICEHUB_MQTT_GROUP = text("DEVICEHUB_MQTT_GROUP", default="devicehub")
DEVICEHUB_MQTT_DROPS = texts("DEVICEHUB_MQTT_DROPS", default=[])
DEVICEHUB_LESHAN_OBSERVE = texts("DEVICEHUB_LESHAN_OBSERVE", default=["3303/*/5700", "3304/*/5700"])
DEVICEHUB_LESHAN_PASSWORD = secret("DEVICEHUB_LESHAN_PASSWORD", "")
DEVICEHUB_COMMAND_DEADLINE = seconds("DEVICEHUB_COMMAND_DEADLINE", default="1h")
DEVICEHUB_QUARANTINE_PER_DEVICE = number("DEVICEHUB_QUARANTINE_PER_DEVICE", default=10 << 20)
DEVICEHUB_LWM2M_ADOPT = flag("DEVICEHUB_LWM2M_ADOPT", default=False)
DEVICEHUB_KEEP_QUARANTINE = text("DEVICEHUB_KEEP_QUARANTINE", default="")
DEVICEHUB_LWM2M_KEEP = pairs("DEVICEHUB_LWM2M_KEEP")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "structlog": {
            "()": structlog.stdlib.ProcessorFormatter,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            "foreign_pre_chain": [
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
            ],
        }
    },
    "filters": {"bounded": {"()": "authsvc.logs.Bounded"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "structlog", "filters": ["bounded"]}
    },
    "root": {"handlers": ["stderr"], "level": text("LOG_LEVEL", default="WARNING")},
    "loggers": {"django": {"handlers": ["stderr"], "level": "WARNING", "propagate": False}},
}
structlog.configure(
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
