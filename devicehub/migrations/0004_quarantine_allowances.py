from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('devicehub', '0003_keeping'),
    ]

    operations = [
        migrations.CreateModel(
            name='QuarantineUse',
            fields=[
                ('owner', models.CharField(max_length=260, primary_key=True, serialize=False)),
                ('size', models.BigIntegerField()),
                ('counted_at', models.DateTimeField()),
            ],
        ),
        migrations.AddField(
            model_name='quarantinedmessage',
            name='size',
            field=models.PositiveIntegerField(blank=True, editable=False, null=True),
        ),
        migrations.CreateModel(
            name='CountedRefusal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('device_key', models.CharField(blank=True, max_length=260)),
                ('reason', models.CharField(max_length=30)),
                ('count', models.BigIntegerField()),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField(db_index=True)),
            ],
            options={
                'ordering': ['-last_at'],
                'constraints': [models.UniqueConstraint(fields=('device_key', 'reason'), name='devicehub_countedrefusal_key')],
            },
        ),
    ]
