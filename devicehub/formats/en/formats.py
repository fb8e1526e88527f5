"""Times with seconds, as on all pages, for `FORMAT_MODULE_PATH = "devicehub.formats"`."""

DATETIME_FORMAT = "Y-m-d H:i:s"
SHORT_DATETIME_FORMAT = "Y-m-d H:i:s"
TIME_FORMAT = "H:i:s"
