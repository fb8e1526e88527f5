from django.apps import AppConfig
from django.db.models.signals import post_migrate


class Lwm2mConfig(AppConfig):
    name = "devicehub.lwm2m"
    label = "lwm2m"
    verbose_name = "LwM2M"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from devicehub.lwm2m import registry

        post_migrate.connect(registry.install, sender=self, dispatch_uid="devicehub.lwm2m.registry")
