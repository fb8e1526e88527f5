from devicehub.admin.devices import DeviceAdmin


class HeatMeterAdmin(DeviceAdmin):
    list_display = (*DeviceAdmin.list_display, "firmware_version")
