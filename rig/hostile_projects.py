"""Projects that were not written for brokers: their middleware, pages and settings."""

from __future__ import annotations

from django.conf import settings as django_settings
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponse
from django.urls import include, path, re_path
from django.utils.deprecation import MiddlewareMixin

from authsvc import views

HERE = "rig.hostile_projects"
AT_MQTT = path("mqtt/", include("authsvc.urls"))
COMMON = "django.middleware.common.CommonMiddleware"


def page(_request, **_options):
    return HttpResponse("<h1>Welcome</h1>")


PAGES = (AT_MQTT, path("healthz", views.alive), path("accounts/login/", page))


def language_page():
    return (*PAGES, *i18n_patterns(re_path(r"^(?P<slug>.*)$", page)))


class ChecksEveryView(MiddlewareMixin):
    """Like django-login-required-middleware: after the view, by an attribute of it."""

    def process_response(self, request, response):
        match = request.resolver_match
        return (
            response if match and not getattr(match.func, "login_required", True) else redirect_to_login("/")
        )


class Stronghold(MiddlewareMixin):
    """Like django-stronghold: before the view, by an attribute of its own."""

    def process_view(self, request, view, _arguments, _options):
        return None if getattr(view, "STRONGHOLD_IS_PUBLIC", False) else redirect_to_login(request.path)


class LoginRequired(MiddlewareMixin):
    """The usual hand-written middleware: by the path alone."""

    def process_request(self, request):
        return None if request.path == "/accounts/login/" else redirect_to_login(request.path)


class Renamed(LoginRequiredMiddleware):
    """Django's own middleware under another name."""


class Strict(LoginRequiredMiddleware):
    def process_view(self, request, view_func, view_args, view_kwargs):
        return redirect_to_login(request.path)


class ReadsTheBody(MiddlewareMixin):
    """Like audit trails and request loggers."""

    def process_request(self, request):
        request.seen = (request.body, request.POST)


class Breaks(MiddlewareMixin):
    def process_request(self, _request):
        raise RuntimeError("provoked before the view")


class BreaksLate(MiddlewareMixin):
    def process_response(self, _request, _response):
        raise RuntimeError("provoked after the view")


def besides(*names, first=()):
    """Return the middleware of an ordinary project, after *first* and before *names*."""
    return [*first, *django_settings.MIDDLEWARE, *names]


CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
HOSTILE = {
    "an ordinary project": {},
    "no middleware": {"MIDDLEWARE": []},
    "a cache of the whole site": {
        "CACHES": CACHES,
        "MIDDLEWARE": lambda: besides(
            "django.middleware.cache.FetchFromCacheMiddleware",
            first=["django.middleware.cache.UpdateCacheMiddleware"],
        ),
    },
    "conditional answers": {
        "MIDDLEWARE": lambda: besides(first=["django.middleware.http.ConditionalGetMiddleware"])
    },
    "compressed answers": {"MIDDLEWARE": lambda: besides(first=["django.middleware.gzip.GZipMiddleware"])},
    "languages, and a page at every path": {
        "ROOT_URLCONF": language_page,
        "MIDDLEWARE": lambda: besides("django.middleware.locale.LocaleMiddleware"),
    },
    "slashes appended": {"APPEND_SLASH": True},
    "sessions that are always saved": {"SESSION_SAVE_EVERY_REQUEST": True},
    "tokens against CSRF in sessions": {"CSRF_USE_SESSIONS": True},
    "Django's login for every view": {
        "MIDDLEWARE": lambda: besides("django.contrib.auth.middleware.LoginRequiredMiddleware")
    },
    "a login checked afterwards": {"MIDDLEWARE": lambda: besides(f"{HERE}.ChecksEveryView")},
    "django-stronghold": {"MIDDLEWARE": lambda: besides(f"{HERE}.Stronghold")},
    "a body that was read before": {"MIDDLEWARE": lambda: besides(f"{HERE}.ReadsTheBody")},
    "small uploads": {"DATA_UPLOAD_MAX_MEMORY_SIZE": 5, "DATA_UPLOAD_MAX_NUMBER_FIELDS": 1},
    "a host that a proxy names": {"USE_X_FORWARDED_HOST": True},
    "debugging": {"DEBUG": True},
    "another time zone": {"TIME_ZONE": "Pacific/Auckland"},
    "https at a proxy": {
        "SECURE_SSL_REDIRECT": True,
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "SECURE_HSTS_SECONDS": 60,
    },
}


def plain(reply):
    """Return the parts of *reply* that a broker reads; fail if it is a page, redirects or sets a cookie."""
    assert not {"location", "set-cookie"} & set(reply.headers), reply.headers
    assert not reply.headers["content-type"].startswith("text/html"), reply.text
    kept_by_caches = reply.request.method in ("GET", "HEAD")
    assert reply.headers.get("cache-control") == ("no-store" if kept_by_caches else None)
    return reply.status_code, reply.headers["content-type"], reply.content


class Elsewhere:
    def db_for_write(self, model, **_hints):
        return "archive" if model._meta.app_label in ("authsvc", "fleet") else None

    def db_for_read(self, model, **_hints):
        return "default" if model._meta.app_label == "authsvc" else None


class Replica:
    """Sends reads elsewhere; questions must not use routers."""

    def db_for_read(self, _model, **_hints):
        return "replica"


LoginRequiredRenamed = Renamed
