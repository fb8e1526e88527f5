"""The migrations of `fleet`, and one of a possible next release."""

from fleet import migrations

__path__ = [*__path__, *migrations.__path__]
