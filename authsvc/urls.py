"""Include these in a project that serves authsvc through Django: `path("mqtt/", include("authsvc.urls"))`."""

from django.urls import re_path

from authsvc import views

app_name = "authsvc"
# Matches every path below, also empty ones and line breaks, so that an unknown question gets our 404, not a page.
urlpatterns = [re_path(r"^(?P<path>(?s:.*))\Z", views.question, name="question")]
