from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('authsvc', '0003_address_of_denials'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='account',
            index=models.Index(condition=models.Q(('client_ids', []), _negated=True), fields=['username'], name='authsvc_account_client_ids'),
        ),
    ]
