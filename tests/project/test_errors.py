"""Each package has one base for its errors, which commands catch."""

import importlib
import pkgutil

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError

import authsvc
import devicehub
from authsvc.core.access import AmbiguousIdentity
from authsvc.errors import AuthsvcError
from authsvc.logs import Shown
from authsvc.management.command import DatabaseCommand
from authsvc.models import InvalidUsername
from devicehub.errors import DevicehubError
from devicehub.provisioning import IdentityTaken, UnknownKind

NO_ERRORS = {Shown}  # it replaces a traceback in a log


def errors_of(package):
    """Yield the classes of errors that the modules of *package* declare."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".migrations" in found.name:
            continue
        module = importlib.import_module(found.name)
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, BaseException)
                and value.__module__ == found.name
            ):
                yield value


@pytest.mark.parametrize(("package", "base"), [(authsvc, AuthsvcError), (devicehub, DevicehubError)])
def test_every_error_has_the_base_of_its_package(package, base):
    declared = set(errors_of(package)) - NO_ERRORS

    assert len(declared) > 15
    assert [error.__name__ for error in declared if not issubclass(error, base)] == []


def test_errors_that_callers_catch_as_values_are_still_values():
    assert issubclass(IdentityTaken, ValueError)
    assert issubclass(InvalidUsername, ValueError)
    assert issubclass(InvalidUsername, ValidationError)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AmbiguousIdentity("two are called station"), "two are called station"),
        (UnknownKind("There is no device type 'kite'"), "There is no device type 'kite'"),
        (ValidationError(["too long", "no level"]), "too long; no level"),
        (InvalidUsername("no username"), "no username"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_refusal_is_one_line_of_a_command(error, said):
    class Refused(DatabaseCommand):
        requires_system_checks = []

        def handle(self, **options):
            raise error

    with pytest.raises(CommandError, match=f"^{said}$"):
        Refused().execute(no_color=False, force_color=False, skip_checks=True)


def test_a_mistake_keeps_its_traceback():
    class Mistaken(DatabaseCommand):
        requires_system_checks = []

        def handle(self, **options):
            raise ValueError("unpacking")

    with pytest.raises(ValueError, match="unpacking"):
        Mistaken().execute(no_color=False, force_color=False, skip_checks=True)
