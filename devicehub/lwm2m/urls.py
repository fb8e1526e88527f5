"""The URLs of the pages of endpoints, in the namespace `devicehub`."""

from django.urls import path

from devicehub.lwm2m.pages import endpoints, events

urlpatterns = [
    path("lwm2m/", endpoints.show_list, name="lwm2m"),
    path("lwm2m/events/", events.show_list, name="lwm2m_events"),
    path("lwm2m/events/<int:number>/", events.show_one, name="lwm2m_event"),
    path("devices/lwm2m/", endpoints.show_list, name="lwm2m_devices"),
    path("devices/lwm2m/<str:device_id>/objects/", endpoints.show_objects, name="lwm2m_objects"),
]
