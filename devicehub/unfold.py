"""The settings of django-unfold for the admin in the look of the product: `from devicehub.unfold import UNFOLD`.

This module is imported by settings, before any app is ready, so functions are named by their paths.
"""

from __future__ import annotations

from typing import Any

SIDEBAR = "devicehub.admin.sidebar"
STEPS = ("50", "100", "200", "300", "400", "500", "600", "700", "800", "900", "950")
# The neutrals of tokens.css, from the ground of the light theme to that of the dark one.
BASE = "f3f4f6 eaecf0 e3e6eb cdd3dc 95a0b0 5d6776 454e5c 38414d 262c35 15191f 0d1014"
# The step 600 is the accent of the light theme, 400 and 500 are that of the dark one.
PRIMARY = "f2f5fe e8edfd d3dcfb b2c3ff 93aaff 93aaff 2f4fcf 2440b0 1d348f 1b2645 0b1020"


def _steps(colours: str) -> dict[str, str]:
    return {step: f"#{colour}" for step, colour in zip(STEPS, colours.split(), strict=True)}


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "DeviceHub",
    "SITE_HEADER": "DeviceHub",
    "SITE_SUBHEADER": "Administration",
    "SITE_URL": f"{SIDEBAR}.site_url",
    "SITE_ICON": f"{SIDEBAR}.mark",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": f"{SIDEBAR}.mark"}],
    "SHOW_BACK_BUTTON": True,
    "DASHBOARD_CALLBACK": "devicehub.admin.index.numbers",
    "SCRIPTS": [f"{SIDEBAR}.symbols"],
    "STYLES": [f"{SIDEBAR}.tokens", f"{SIDEBAR}.styles"],
    "COLORS": {"base": _steps(BASE), "primary": _steps(PRIMARY)},
    "ACCOUNT": {"navigation": f"{SIDEBAR}.account"},
    # unfold keeps the results of a user for 5 minutes: rows that this user has seen before.
    "COMMAND": {
        "search_models": False,
        "show_history": False,
        "search_callback": "devicehub.admin.index.search",
    },
    "SIDEBAR": {
        "show_search": False,
        "command_search": True,
        "show_all_applications": False,
        "navigation": f"{SIDEBAR}.navigation",
    },
}
