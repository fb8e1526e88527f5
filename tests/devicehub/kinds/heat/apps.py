from django.apps import AppConfig


class HeatConfig(AppConfig):
    name = "tests.devicehub.kinds.heat"
    label = "heat"
    default_auto_field = "django.db.models.BigAutoField"
