import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Add the endpoint to values of events, by which retention and removal find them."""

    dependencies = [("lwm2m", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="eventresource",
            name="device",
            # There is no row yet: nothing has recorded an event of a project.
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="event_values",
                to="lwm2m.endpoint",
                verbose_name="endpoint",
            ),
        ),
        migrations.AlterField(
            model_name="eventresource",
            name="event",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="own_values",
                to="lwm2m.event",
            ),
        ),
        migrations.AlterField(
            model_name="eventresource",
            name="timestamp",
            field=models.DateTimeField(db_index=True),
        ),
        migrations.AddIndex(
            model_name="eventresource",
            index=models.Index(fields=["device", "timestamp"], name="lwm2m_eventresource_device"),
        ),
    ]
