from django.apps import AppConfig
from django.db.models.signals import post_migrate


class Lwm2mConfig(AppConfig):
    name = "devicehub.lwm2m"
    label = "lwm2m"
    verbose_name = "LwM2M"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from devicehub.api import routes as api_routes
        from devicehub.dashboard import navigation, routes
        from devicehub.lwm2m import definitions, expiry  # Models exist only now.
        from devicehub.lwm2m.kind import KIND
        from devicehub.lwm2m.leshan_api import broker, counting  # noqa: F401 - its dialect and its metric
        from devicehub.lwm2m.pages.access import may_see
        from devicehub.lwm2m.simulated import SimulatedEndpoint
        from devicehub.simulation import device
        from devicehub.worker import tasks

        post_migrate.connect(definitions.install, sender=self, dispatch_uid="devicehub.lwm2m.definitions")
        tasks.register("lwm2m_expiry", expiry.EVERY, expiry.ExpiryWatch.run, needs=expiry.ExpiryWatch.of)
        device.register(KIND.slug, SimulatedEndpoint)
        routes.register("devicehub.lwm2m.urls")
        api_routes.register("devicehub.lwm2m.api.urls")
        navigation.register(
            "LwM2M",
            "devicehub:lwm2m",
            group=navigation.FLEET,
            icon="tree",
            order=40,
            visible=may_see,
            also="devicehub:lwm2m_devices",
        )
