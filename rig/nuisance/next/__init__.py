"""The migrations of `fleet` with one more, as the next release might bring it."""

from fleet import migrations

__path__ = [*__path__, *migrations.__path__]
