"""The routes of LwM2M below `/api/`, which the app registers."""

from django.urls import path

from devicehub.api import index
from devicehub.lwm2m.api import endpoints, events, history, objects, resources

for _name in ("objects", "endpoints", "events"):
    index.show(f"lwm2m_{_name}", f"api_lwm2m_{_name}")

urlpatterns = [
    path("lwm2m/objects/", objects.Objects.as_view(), name="api_lwm2m_objects"),
    path("lwm2m/objects/<int:object_id>/", objects.OneObject.as_view(), name="api_lwm2m_object"),
    path("lwm2m/endpoints/", endpoints.Endpoints.as_view(), name="api_lwm2m_endpoints"),
    path("lwm2m/endpoints/<str:ep>/", endpoints.OneEndpoint.as_view(), name="api_lwm2m_endpoint"),
    path("lwm2m/endpoints/<str:ep>/resources/", resources.Resources.as_view(), name="api_lwm2m_resources"),
    path("lwm2m/endpoints/<str:ep>/history/", history.History.as_view(), name="api_lwm2m_history"),
    path("lwm2m/events/", events.Events.as_view(), name="api_lwm2m_events"),
    path("lwm2m/events/<int:number>/", events.OneEvent.as_view(), name="api_lwm2m_event"),
]
