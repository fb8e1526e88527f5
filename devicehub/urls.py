"""The URLs of the pages, to include at the root or below a prefix."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from devicehub.api.token import token
from devicehub.dashboard.views import fleet, live_events, strict

login = LoginView.as_view(template_name="devicehub/login.html", redirect_authenticated_user=True)

urlpatterns = [
    path("api/token", token, name="token"),
    path("", fleet, name="fleet"),
    path("live", live_events, name="live"),
    path("login/", strict(login), name="login"),
    path("logout/", strict(LogoutView.as_view()), name="logout"),
]
