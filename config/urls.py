from django.contrib import admin
from django.urls import include, path

from authsvc.views import alive, measured, ready

urlpatterns = [
    path("mqtt/", include("authsvc.urls")),
    path("healthz", alive),
    path("readyz", ready),
    path("metrics", measured),
    path("admin/", admin.site.urls),
    path("", include("devicehub.urls")),
]
