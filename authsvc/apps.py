from django.apps import AppConfig
from django.db.models.signals import post_delete, post_migrate, pre_migrate, pre_save


class AuthsvcConfig(AppConfig):
    name = "authsvc"
    verbose_name = "Access"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from authsvc import checks, granting, logs, models  # noqa: F401 - Models are ready only now.
        from authsvc.audit import triggers as keeping
        from authsvc.freshness import triggers

        logs.install()
        pre_save.connect(
            models.before_account_save,
            sender=models.Account,
            dispatch_uid="authsvc.models.before_account_save",
        )
        post_delete.connect(
            granting.after_account_delete,
            sender=models.Account,
            dispatch_uid="authsvc.granting.after_account_delete",
        )

        pre_migrate.connect(keeping.before_migration, sender=self, dispatch_uid="authsvc.audit.triggers")
        post_migrate.connect(keeping.install, sender=self, dispatch_uid="authsvc.audit.triggers")
        pre_migrate.connect(triggers.remove, sender=self, dispatch_uid="authsvc.freshness.triggers.remove")
        post_migrate.connect(triggers.install, sender=self, dispatch_uid="authsvc.freshness.triggers")
