from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('devicehub', '0010_note_uses_in_rotations'),
    ]

    operations = [
        migrations.AddField(
            model_name='rotationmember',
            name='key_mark',
            field=models.CharField(blank=True, default='', editable=False, max_length=16),
        ),
        migrations.AddField(
            model_name='rotationmember',
            name='replaced_key',
            field=models.CharField(blank=True, default='', editable=False, max_length=128),
        ),
    ]
