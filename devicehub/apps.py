from django.apps import AppConfig
from django.db.models.signals import post_migrate


class DevicehubConfig(AppConfig):
    name = "devicehub"
    verbose_name = "Devices"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.db.models.signals import post_delete

        from devicehub import checks, commands, models, storage  # noqa: F401 - models exist only now
        from devicehub.registry import registry

        models.register_command_sender(commands.send)
        for kind in registry:  # by kind: a receiver of every deletion would make all of them slow
            post_delete.connect(commands.forget_open, sender=kind.device_model, dispatch_uid="commands")
        post_migrate.connect(storage.leave_room, sender=self, dispatch_uid="devicehub.storage")
