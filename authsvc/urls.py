"""Include these in a project that serves authsvc through Django: `path("mqtt/", include("authsvc.urls"))`."""

from django.urls import path

from authsvc import views

app_name = "authsvc"
urlpatterns = [path("<path:path>", views.question, name="question")]
