from django.apps import AppConfig


class DevicehubConfig(AppConfig):
    name = "devicehub"
    verbose_name = "Devices"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from devicehub import checks, commands, models, removal  # noqa: F401 - models exist only now

        models.register_command_sender(commands.send)
        models.register_watcher(removal.Removal())
        removal.watch()
