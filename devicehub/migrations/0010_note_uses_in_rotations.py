from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('devicehub', '0009_number_runs_of_rotations'),
    ]

    operations = [
        migrations.RemoveField(
            model_name='rotationmember',
            name='kept_old',
        ),
        migrations.AddField(
            model_name='rotationmember',
            name='is_used',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='rotationmember',
            name='replaced_marks',
            field=models.CharField(blank=True, default='', editable=False, max_length=170),
        ),
    ]
