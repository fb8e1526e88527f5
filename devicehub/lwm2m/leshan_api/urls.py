"""The addresses for the bridge of flownexus, to include at the root; its base URL may hold the token."""

from django.urls import path

from devicehub.lwm2m.leshan_api.views import resource

urlpatterns = [
    path(f"{prefix}leshan_api/resource/{shape}", resource, {"shape": shape})
    for prefix in ("", "k/<str:token>/")
    for shape in ("single", "composite")
]
