"""The import paths that projects, settings and migrations name."""

import pytest
from django.utils.module_loading import import_string

from devicehub.models import DeviceIdField

PATHS = {
    "devicehub": "Command DeviceType Reading StateField reading_types",
    "devicehub.models": (
        "BaseDevice BaseMessage BaseReading CommandState CountedRefusal DeviceCommand DeviceIdField DeviceStatus "
        "IngestSession IngestWorker InvalidDeviceId OPEN_STATES OPERATOR_STATES ProcessingStatus "
        "QuarantineUse QuarantinedMessage RemovalRequest RetainedTopic RolledUp Rollup "
        "default_deadline digest_api_key register_command_sender validate_device_id"
    ),
    "devicehub.signals": (
        "device_command_sent device_connected device_data_received device_disconnected device_provisioned "
        "device_status_changed"
    ),
    "devicehub.directory": "DeviceDirectory",
    "devicehub.provisioning": (
        "IdentityTaken UnknownDevice UnknownKind choose_account_password choose_password create create_account "
        "described find grant_ingest kind_of next_ids refuse_claimed refuse_claims refuse_taken "
        "revoke rotate_account rotate_api_key rotate_password shared_names"
    ),
    "devicehub.commands": "CommandNotSent cancel close send send_due",
    "devicehub.urls": "urlpatterns",
    "devicehub.logins": "Backend Handler address name",
    "devicehub.dashboard.lockout": "page",
    "devicehub.dashboard.policy": "content_policy",
    "devicehub.kinds.registry": "registry",
    "authsvc.asgi": "Entrance",
    "authsvc.gunicorn": "worker_class",
    "authsvc.urls": "urlpatterns",
    "authsvc.views": "alive measured question ready",
    "authsvc.models": (
        "Account Broker ClientIdTaken Denial FilterField Grant InvalidGrant InvalidUsername PolicyRevision "
        "SubjectField UsernameField validate_client_ids validate_dialects validate_filter validate_networks "
        "validate_subject validate_texts validate_username"
    ),
    "authsvc.directory": "AccountDirectory",
    "authsvc.sources": "Source",
    "authsvc.core.access": "Principal Secret",
    "authsvc.core.grants": "ActionSet Grant",
    "authsvc.core.memory": "MemoryDirectory",
    "authsvc.core.passwords": "UnusableHash generate hash_chosen hash_generated scheme_of verify",
    "authsvc.freshness.reader": "fetch",
    "authsvc.logs": "Bounded",
    "authsvc.secret_columns": "HidesSecrets SecretField is_secret of",
    "authsvc.serving": "Worker",
}


@pytest.mark.sqlite_only
@pytest.mark.parametrize("module", PATHS)
def test_a_documented_path_can_be_imported(module):
    for name in PATHS[module].split():
        assert import_string(f"{module}.{name}") is not None, name


@pytest.mark.sqlite_only
def test_migrations_name_the_field_of_device_ids_by_its_documented_path():
    assert DeviceIdField(max_length=128).deconstruct()[1] == "devicehub.models.DeviceIdField"
