from django.contrib import admin
from django.urls import include, path

from authsvc.views import alive, measured, ready

handler400 = "devicehub.dashboard.errors.bad_request"
handler403 = "devicehub.dashboard.errors.denied"
handler404 = "devicehub.dashboard.errors.not_found"
handler500 = "devicehub.dashboard.errors.failed"

urlpatterns = [
    path("mqtt/", include("authsvc.urls")),
    path("healthz", alive),
    path("readyz", ready),
    path("metrics", measured),
    path("admin/", admin.site.urls),
    path("", include("devicehub.lwm2m.leshan_api.urls")),
    path("", include("devicehub.urls")),
]
