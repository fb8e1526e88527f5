from django.contrib import admin
from django.urls import include, path

from authsvc.views import alive

urlpatterns = [
    path("mqtt/", include("authsvc.urls")),
    path("healthz", alive),
    path("admin/", admin.site.urls),
    path("", include("devicehub.urls")),
]
