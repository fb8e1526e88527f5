"""The URLs of a project that has the admin and the questions of brokers, and no page of its own."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("mqtt/", include("authsvc.urls")), path("admin/", admin.site.urls)]
