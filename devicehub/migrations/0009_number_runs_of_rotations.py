from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('devicehub', '0008_rotations_and_imports'),
    ]

    operations = [
        migrations.AddField(
            model_name='rotation',
            name='run',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='rotationmember',
            name='kept_old',
            field=models.BooleanField(default=False),
        ),
    ]
