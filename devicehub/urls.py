"""The pages, to include at the root or below a prefix."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from devicehub.dashboard import views

urlpatterns = [
    path("", views.fleet, name="fleet"),
    path("live", views.live, name="live"),
    path("login/", LoginView.as_view(template_name="devicehub/login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
]
