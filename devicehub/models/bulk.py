"""Work on many devices that outlasts a request: rotations and imports. No row holds a secret."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from authsvc.secret_columns import SecretField


class Rotation(models.Model):
    """A named set of devices that get new credentials together, so that their change can be watched.

    The credentials are written to one file, once. *until* is the end of the old passwords: a time,
    authsvc.credentials.UNTIL_USED, or None if they ended at once. *touched_at* is the time of the last batch.
    """

    class Origin(models.TextChoices):
        ROTATION = "rotation", "Rotation"
        IMPORT = "import", "Import"  # Its devices were new, so no old password exists.

    name = models.CharField(max_length=100)
    origin = models.CharField(max_length=10, choices=Origin, default=Origin.ROTATION)
    started_by = models.CharField(max_length=150, blank=True)
    started_at = models.DateTimeField(db_index=True)
    touched_at = models.DateTimeField()
    until = models.DateTimeField(null=True, blank=True)
    api_keys = models.BooleanField(default=False)  # The API keys are replaced too.
    run = models.PositiveIntegerField(default=0)  # The number of the latest run; an earlier one stops.
    written_at = models.DateTimeField(null=True, blank=True)  # The file is complete.
    ended_at = models.DateTimeField(null=True, blank=True)  # Finished or rolled back.

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.name


class RotationMember(models.Model):
    """A device of a rotation. *changed_at* is the time at which this rotation set its password; None before that.

    If the device has a password of another mark now, it was changed since, and the rotation leaves it alone.
    """

    class End(models.TextChoices):
        FINISHED = "finished", "Finished"
        ROLLED_BACK = "rolled_back", "Rolled back"

    rotation = models.ForeignKey(Rotation, on_delete=models.CASCADE, related_name="members")
    kind = models.CharField(max_length=100)
    device_key = models.CharField(max_length=260, db_index=True)
    changed_at = models.DateTimeField(null=True, blank=True)
    # The expiry of the old password.
    replaced_expiry = models.DateTimeField(null=True, blank=True)
    # A login used the new password during the overlap. Unlike a last login, it is noted under the device's lock.
    is_used = models.BooleanField(default=False)
    # The marks of issued passwords that "Rotate again" replaced, the latest first.
    replaced_marks = SecretField(max_length=170, blank=True, default="", editable=False)
    # By this a login shows that it had the new password; a comparison of times would also count a login with the old
    # one that was judged while the transaction of the rotation ran.
    password_mark = SecretField(max_length=16, blank=True, editable=False)
    # The mark of the API key that this rotation issued, and the digest of the key before it, for a roll-back.
    key_mark = SecretField(max_length=16, blank=True, default="", editable=False)
    replaced_key = SecretField(max_length=128, blank=True, default="", editable=False)
    end = models.CharField(max_length=11, choices=End, blank=True)

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["rotation", "device_key"], name="devicehub_rotationmember_unique")
        ]

    def __str__(self) -> str:
        return f"{self.device_key} in {self.rotation}"


class DeviceImport(models.Model):
    """A file with devices, from its upload until the devices are created; then its rows are deleted.

    *headings* are the names in its first line, and *columns* what each of them becomes. *counts* holds the number of
    rows by verdict, *verdicts* those of the first rows.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    file_name = models.CharField(max_length=100)
    kind = models.CharField(max_length=100, blank=True)  # The type of rows without one.
    headings = models.JSONField(default=list)
    columns = models.JSONField(default=list)
    size = models.PositiveIntegerField(default=0)
    counts = models.JSONField(default=dict)
    verdicts = models.JSONField(default=list)
    uploaded_at = models.DateTimeField(db_index=True)
    touched_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    done = models.PositiveIntegerField(default=0)  # Rows that were tried.
    created = models.PositiveIntegerField(default=0)
    rotation = models.ForeignKey(Rotation, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.file_name


class ImportPart(models.Model):
    """Some rows of an uploaded file: a list of [line, cells]."""

    upload = models.ForeignKey(DeviceImport, on_delete=models.CASCADE, related_name="parts")
    rows = models.JSONField()

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{len(self.rows)} rows of {self.upload_id}"
