"""A migration of the next release: columns, an index, and pauses in which the old release must work."""

import os
import pkgutil
import time

from django.db import migrations, models

from fleet import migrations as released


def hold(apps, schema_editor):
    """Wait with all locks held, as a migration of a large table does."""
    time.sleep(float(os.environ["HELD"]))


class Migration(migrations.Migration):
    dependencies = [("fleet", max(module.name for module in pkgutil.iter_modules(released.__path__)))]
    operations = [
        migrations.AddField("weatherstationdevice", "owner", models.CharField(max_length=50, null=True)),
        migrations.AddField("weatherstationreading", "snow", models.FloatField(null=True)),
        migrations.RunPython(hold, migrations.RunPython.noop),
        migrations.AddIndex("weatherstationmessage", models.Index("topic", name="next_topic")),
        migrations.RunPython(hold, migrations.RunPython.noop),
    ]
