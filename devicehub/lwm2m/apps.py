from django.apps import AppConfig


class Lwm2mConfig(AppConfig):
    name = "devicehub.lwm2m"
    label = "lwm2m"
    verbose_name = "LwM2M"
    default_auto_field = "django.db.models.BigAutoField"
