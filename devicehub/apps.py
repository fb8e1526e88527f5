from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_delete


class DevicehubConfig(AppConfig):
    name = "devicehub"
    verbose_name = "Messages"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from authsvc.granting import register_subject_check
        from authsvc.models import register_claim_check
        from devicehub import checks, commands, models, provisioning, rights, roles, second_factor, sessions  # noqa: F401 - models exist only now
        from devicehub.removal import inheritance
        from devicehub.retention import device_indexes, page_layout

        register_claim_check(provisioning.refuse_claims)
        register_subject_check(provisioning.subject_problem)
        models.register_command_sender(commands.send)
        models.register_placing(provisioning.follow)
        pre_delete.connect(
            provisioning.before_group_delete,
            sender=models.DeviceGroup,
            dispatch_uid="devicehub.provisioning.groups",
        )
        inheritance.watch()
        rights.watch()
        sessions.watch()
        second_factor.watch()
        post_migrate.connect(
            page_layout.leave_room, sender=self, dispatch_uid="devicehub.retention.page_layout"
        )
        post_migrate.connect(
            device_indexes.make, sender=self, dispatch_uid="devicehub.retention.device_indexes"
        )
        post_migrate.connect(roles.install, sender=self, dispatch_uid="devicehub.roles")
