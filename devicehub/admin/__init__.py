"""The admin of every kind and of what all kinds share. No secret and no hash is ever shown.

Django imports this package alone, so it imports the modules that register pages.
"""

from devicehub.admin import commands, devices, kinds, records

__all__ = ["commands", "devices", "kinds", "records"]
