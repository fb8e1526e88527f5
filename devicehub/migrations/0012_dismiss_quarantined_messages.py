from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('devicehub', '0011_keep_replaced_api_keys'),
    ]

    operations = [
        migrations.AddField(
            model_name='quarantinedmessage',
            name='dismissed_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
