from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('devicehub', '0004_quarantine_allowances'),
    ]

    operations = [
        migrations.CreateModel(
            name='IngestSession',
            fields=[
                ('client_id', models.CharField(max_length=256, primary_key=True, serialize=False)),
                ('filters', models.JSONField(default=list)),
            ],
            options={
                'ordering': ['client_id'],
            },
        ),
    ]
