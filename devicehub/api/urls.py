"""The routes of the API, to include below `api/` in the namespace `devicehub`."""

from django.urls import path, re_path

from devicehub.api import documentation, index, keys, posting, routes
from devicehub.api.token import token

urlpatterns = [
    path("token", token, name="token"),
    path("", index.Index.as_view(), name="api"),
    path("schema/", documentation.SchemaView.as_view(), name="api_schema"),
    path("docs/", documentation.Docs.as_view(), name="api_docs"),
    path("devices/<str:type>/<str:device_id>/readings/", posting.Readings.as_view(), name="api_readings"),
    path("keys/", keys.Keys.as_view(), name="api_keys"),
    path("keys/<int:number>/", keys.OneKey.as_view(), name="api_key"),
    *routes.patterns(),
    re_path(r"", index.Unknown.as_view(), name="api_unknown"),
]
