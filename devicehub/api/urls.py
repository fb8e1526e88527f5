"""The routes of the API, to include below `api/` in the namespace `devicehub`."""

from django.urls import path, re_path

from devicehub.api import (
    accounts,
    audit,
    brokers,
    commands,
    denials,
    documentation,
    grants,
    index,
    keys,
    messages,
    quarantine,
    readings,
    routes,
)
from devicehub.api.token import token

urlpatterns = [
    path("token", token, name="token"),
    path("", index.Index.as_view(), name="api"),
    path("schema/", documentation.SchemaView.as_view(), name="api_schema"),
    path("docs/", documentation.Docs.as_view(), name="api_docs"),
    path("accounts/", accounts.Accounts.as_view(), name="api_accounts"),
    path("accounts/<str:username>/", accounts.OneAccount.as_view(), name="api_account"),
    path("accounts/<str:username>/revoke/", accounts.AccountRevocation.as_view(), name="api_revoke_account"),
    path("accounts/<str:username>/rotate/", accounts.AccountRotation.as_view(), name="api_rotate_account"),
    path("audit/", audit.Audit.as_view(), name="api_audit"),
    path("audit/<int:number>/", audit.OneEntry.as_view(), name="api_audit_entry"),
    path("brokers/", brokers.Brokers.as_view(), name="api_brokers"),
    path("brokers/<int:number>/", brokers.OneBroker.as_view(), name="api_broker"),
    path("brokers/<int:number>/revoke/", brokers.BrokerRevocation.as_view(), name="api_revoke_broker"),
    path("brokers/<int:number>/rotate/", brokers.BrokerRotation.as_view(), name="api_rotate_broker"),
    path("denials/", denials.Denials.as_view(), name="api_denials"),
    path("denials/<int:number>/", denials.OneDenial.as_view(), name="api_denial"),
    path("devices/<str:type>/<str:device_id>/commands/", commands.Commands.as_view(), name="api_commands"),
    path(
        "devices/<str:type>/<str:device_id>/commands/<uuid:id>/",
        commands.OneCommand.as_view(),
        name="api_command",
    ),
    path("devices/<str:type>/<str:device_id>/latest/", readings.Latest.as_view(), name="api_latest"),
    path("devices/<str:type>/<str:device_id>/messages/", messages.Messages.as_view(), name="api_messages"),
    path("devices/<str:type>/<str:device_id>/readings/", readings.Readings.as_view(), name="api_readings"),
    path("grants/", grants.Grants.as_view(), name="api_grants"),
    path("grants/<int:number>/", grants.OneGrant.as_view(), name="api_grant"),
    path("keys/", keys.Keys.as_view(), name="api_keys"),
    path("keys/<int:number>/", keys.OneKey.as_view(), name="api_key"),
    path("quarantine/", quarantine.Quarantine.as_view(), name="api_quarantine"),
    path("quarantine/<int:number>/", quarantine.OneMessage.as_view(), name="api_quarantined"),
    path("quarantine/<int:number>/replay/", quarantine.Replay.as_view(), name="api_replay"),
    path("readings/export/", readings.ReadingsExport.as_view(), name="api_readings_export"),
    *routes.patterns(),
    re_path(r"", index.Unknown.as_view(), name="api_unknown"),
]
