"""Include these in a project that serves authsvc through Django: `path("mqtt/", include("authsvc.urls"))`."""

from django.urls import re_path

from authsvc import views

app_name = "authsvc"
# Everything below, the empty path and line breaks too: what is no question gets our 404, and no page.
urlpatterns = [re_path(r"^(?P<path>(?s:.*))\Z", views.question, name="question")]
