
import devicehub.models.groups
import devicehub.models.people
import django.core.validators
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('devicehub', '0006_devices_seen_disabled'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='DeviceGroup',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slug', models.SlugField(help_text='The name in grants, as in group:roof; it cannot be changed later.', unique=True, validators=[django.core.validators.RegexValidator('\\A[a-z0-9_-]+\\Z', 'Use small letters, digits, - and _.')])),
                ('name', models.CharField(max_length=100)),
                ('note', models.CharField(blank=True, max_length=255)),
                ('types', models.JSONField(blank=True, default=list, validators=[devicehub.models.groups.validate_words])),
                ('sites', models.JSONField(blank=True, default=list, validators=[devicehub.models.groups.validate_words])),
                ('tags', models.JSONField(blank=True, default=list, validators=[devicehub.models.groups.validate_words])),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.CreateModel(
            name='DeviceOptions',
            fields=[
                ('device_key', models.CharField(max_length=260, primary_key=True, serialize=False)),
                ('expected_heartbeat', models.FloatField(blank=True, help_text='Seconds between two messages of this device; empty is the interval of its type.', null=True, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(2592000)])),
                ('rate_limit', models.CharField(blank=True, help_text='Messages that this device may send, such as 60/m; empty is the limit of all devices.', max_length=40, validators=[devicehub.models.groups.validate_rate])),
            ],
        ),
        migrations.CreateModel(
            name='SiteScope',
            fields=[
                ('user', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='site_scope', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('sites', models.JSONField(default=list, validators=[devicehub.models.people.validate_sites])),
            ],
        ),
        migrations.CreateModel(
            name='SignIn',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('address', models.CharField(blank=True, max_length=45)),
                ('agent', models.CharField(blank=True, max_length=200)),
                ('signed_in_at', models.DateTimeField()),
                ('last_seen', models.DateTimeField()),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='sign_ins', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.CreateModel(
            name='UsedForm',
            fields=[
                ('digest', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('used_at', models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='DeviceTag',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('device_key', models.CharField(max_length=260)),
                ('tag', models.SlugField()),
            ],
            options={
                'ordering': ['tag'],
                'constraints': [models.UniqueConstraint(fields=('device_key', 'tag'), name='devicehub_devicetag_unique')],
            },
        ),
        migrations.CreateModel(
            name='GroupMember',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('device_key', models.CharField(db_index=True, max_length=260)),
                ('group', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='members', to='devicehub.devicegroup')),
            ],
            options={
                'ordering': ['device_key'],
                'constraints': [models.UniqueConstraint(fields=('group', 'device_key'), name='devicehub_groupmember_unique')],
            },
        ),
        migrations.AlterModelOptions(
            name='devicecommand',
            options={'ordering': ['-queued_at'], 'verbose_name': 'command'},
        ),
        migrations.AlterModelOptions(
            name='devicegroup',
            options={'ordering': ['name'], 'verbose_name': 'group of devices', 'verbose_name_plural': 'groups of devices'},
        ),
        migrations.AlterModelOptions(
            name='quarantinedmessage',
            options={'ordering': ['-received_at'], 'verbose_name': 'message in quarantine', 'verbose_name_plural': 'messages in quarantine'},
        ),
        migrations.AlterModelOptions(
            name='removalrequest',
            options={'ordering': ['requested_at'], 'verbose_name': 'removal'},
        ),
    ]
