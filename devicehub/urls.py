"""The URLs of the pages, to include at the root or below a prefix. Their names have the namespace `devicehub`."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from devicehub.api.index import Unknown
from devicehub.conf import settings
from devicehub.dashboard import (
    account,
    credentials,
    denials,
    importing,
    keys,
    password_reset,
    rotations,
    routes,
    search,
    simulator,
)
from devicehub.dashboard.access import strict
from devicehub.dashboard.views import show_overview, stream

app_name = "devicehub"

login = LoginView.as_view(
    template_name="devicehub/login.html",
    redirect_authenticated_user=True,
    extra_context={"offers_reset": lambda: settings.password_reset},
)

urlpatterns = [
    path("api", Unknown.as_view()),
    path("api/", include("devicehub.api.urls")),
    path("", include("devicehub.api.problem_pages")),
    path("", show_overview, name="overview"),
    path("stream/", stream, name="stream"),
    path("denials/", denials.show_list, name="denials"),
    path("denials/<int:number>/", denials.show_one, name="denial"),
    path("denials/<int:number>/allow/", denials.allow_one, name="allow_denial"),
    path("denials/<int:number>/dismiss/", denials.dismiss_one, name="dismiss_denial"),
    path("simulator/", simulator.show, name="simulator"),
    path("search/", search.show, name="search"),
    path("devices/add/", credentials.add_device, name="add_device"),
    path("devices/<str:slug>/<str:device_id>/credentials/", credentials.credentials, name="credentials"),
    path("devices/<str:slug>/<str:device_id>/credentials/light/", credentials.light, name="light"),
    path("devices/import/", importing.import_devices, name="import_devices"),
    path("devices/import/<int:number>/", importing.show_import, name="import"),
    path("devices/import/<int:number>/progress/", importing.show_progress, name="import_progress"),
    path("rotations/", rotations.show_rotations, name="rotations"),
    path("rotations/<int:number>/", rotations.show_rotation, name="rotation"),
    path("rotations/<int:number>/progress/", rotations.show_progress, name="rotation_progress"),
    path("login/", strict(login), name="login"),
    path("account/", account.show, name="account"),
    path("account/password/", account.change_password, name="password_change"),
    path("account/second-factor/", account.show_second_factor, name="second_factor"),
    path("account/keys/add/", keys.add, name="add_key"),
    path("account/keys/<int:number>/delete/", keys.delete, name="delete_key"),
    path("account/sessions/end/", account.end_others, name="end_sessions"),
    path("password/reset/", password_reset.ask, name="password_reset"),
    path("password/reset/sent/", password_reset.sent, name="password_reset_sent"),
    path("password/reset/<uidb64>/<token>/", password_reset.choose, name="password_reset_confirm"),
    path("password/reset/done/", password_reset.done, name="password_reset_done"),
    path("logout/", strict(LogoutView.as_view()), name="logout"),
    *routes.patterns(),
]
