from django.apps import AppConfig, apps


class FleetConfig(AppConfig):
    name = "fleet"
    verbose_name = "Fleet"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Call Django's users and groups People in the admin, as its navigation does."""
        apps.get_app_config("auth").verbose_name = "People"
