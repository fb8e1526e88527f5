from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('authsvc', '0002_credentials_of_accounts'),
    ]

    operations = [
        migrations.AddField(
            model_name='denial',
            name='address',
            field=models.CharField(blank=True, db_default='', default='', help_text='from where the broker asked last', max_length=45),
        ),
    ]
