"""Commands are queued, sent and followed to their end; those of before are answered, or expired without an answer."""

import django.utils.timezone
from django.db import migrations, models
from django.db.models import Case, F, Value, When

import devicehub.models


def fill(apps, schema_editor):
    apps.get_model('devicehub', 'DeviceCommand').objects.update(
        queued_at=F('sent_at'),
        deadline=F('sent_at'),
        attempts=1,
        due_at=None,
        ended_at=Case(When(answered_at=None, then=F('sent_at')), default=None),
        state=Case(When(answered_at=None, then=Value('expired')), default=Value('answered')),
    )


def drop_unsent(apps, schema_editor):
    """The table of before knows only commands that went out."""
    apps.get_model('devicehub', 'DeviceCommand').objects.filter(sent_at=None).delete()


class Migration(migrations.Migration):

    dependencies = [
        ('devicehub', '0001_initial'),
    ]

    operations = [
        migrations.RenameModel(old_name='SentCommand', new_name='DeviceCommand'),
        migrations.AlterModelOptions(name='devicecommand', options={'ordering': ['-queued_at']}),
        migrations.AlterField('devicecommand', 'sent_at', models.DateTimeField(blank=True, null=True)),
        migrations.RunPython(migrations.RunPython.noop, drop_unsent),
        migrations.AddField(
            'devicecommand',
            'state',
            models.CharField(
                choices=[
                    ('queued', 'Queued'), ('sent', 'Sent'), ('acknowledged', 'Acknowledged'),
                    ('answered', 'Answered'), ('failed', 'Failed'), ('expired', 'Expired'),
                    ('cancelled', 'Cancelled'),
                ],
                default='queued',
                max_length=12,
            ),
        ),
        migrations.AddField(
            'devicecommand', 'deadline', models.DateTimeField(default=devicehub.models.default_deadline)
        ),
        migrations.AddField('devicecommand', 'attempts', models.PositiveIntegerField(default=0)),
        migrations.AddField(
            'devicecommand',
            'due_at',
            models.DateTimeField(blank=True, default=django.utils.timezone.now, editable=False, null=True),
        ),
        migrations.AddField(
            'devicecommand', 'leased_until', models.DateTimeField(blank=True, editable=False, null=True)
        ),
        migrations.AddField(
            'devicecommand',
            'queued_at',
            models.DateTimeField(db_index=True, default=django.utils.timezone.now),
        ),
        migrations.AddField('devicecommand', 'acknowledged_at', models.DateTimeField(blank=True, null=True)),
        migrations.AddField('devicecommand', 'ended_at', models.DateTimeField(blank=True, null=True)),
        migrations.AddField('devicecommand', 'error', models.CharField(blank=True, max_length=500)),
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AddIndex(
            'devicecommand',
            models.Index(
                condition=models.Q(due_at__isnull=False), fields=['due_at'], name='devicehub_command_due'
            ),
        ),
        migrations.AddIndex(
            'devicecommand',
            models.Index(
                condition=models.Q(due_at__isnull=False), fields=['device_key'], name='devicehub_command_open'
            ),
        ),
        migrations.AddConstraint(
            'devicecommand',
            models.CheckConstraint(
                condition=models.Q(state__in=[
                    'queued', 'sent', 'acknowledged', 'answered', 'failed', 'expired', 'cancelled',
                ]),
                name='devicehub_command_state',
            ),
        ),
    ]
