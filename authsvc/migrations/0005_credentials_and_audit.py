
import authsvc.models
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('authsvc', '0004_index_accounts_with_client_ids'),
    ]

    operations = [
        migrations.CreateModel(
            name='AuditEntry',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_index=True)),
                ('actor_kind', models.CharField(choices=[('user', 'User'), ('key', 'API key'), ('shell', 'Shell'), ('system', 'System')], max_length=10)),
                ('actor', models.CharField(max_length=150)),
                ('address', models.CharField(blank=True, max_length=45)),
                ('action', models.CharField(db_index=True, max_length=40)),
                ('object_key', models.CharField(db_index=True, max_length=260)),
                ('before', models.JSONField(blank=True, null=True)),
                ('after', models.JSONField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, max_length=300)),
            ],
            options={
                'verbose_name': 'audit entry',
                'verbose_name_plural': 'audit entries',
                'ordering': ['-at', '-pk'],
            },
        ),
        migrations.CreateModel(
            name='AuditRetention',
            fields=[
                ('id', models.SmallIntegerField(primary_key=True, serialize=False)),
                ('keep_seconds', models.BigIntegerField(null=True)),
                ('since', models.DateTimeField()),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('keep_seconds__gte', 86400)), name='authsvc_auditretention_a_day')],
            },
        ),
        migrations.CreateModel(
            name='LastLogin',
            fields=[
                ('key', models.CharField(max_length=260, primary_key=True, serialize=False)),
                ('first_at', models.DateTimeField()),
                ('at', models.DateTimeField(db_index=True)),
                ('broker', models.CharField(blank=True, max_length=100)),
                ('client_id', models.CharField(blank=True, max_length=128)),
                ('address', models.CharField(blank=True, max_length=45)),
                ('current_at', models.DateTimeField(blank=True, null=True)),
                ('current_mark', models.CharField(blank=True, default='', editable=False, max_length=16)),
                ('previous_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'ordering': ['-at'],
            },
        ),
        migrations.AddField(
            model_name='broker',
            name='previous_token_digest',
            field=models.CharField(editable=False, max_length=64, null=True, unique=True),
        ),
        migrations.AddField(
            model_name='broker',
            name='previous_token_until',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='broker',
            name='token_changed_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='grant',
            name='valid_from',
            field=models.DateTimeField(blank=True, help_text='In force from this time; empty is from now.', null=True),
        ),
        migrations.AddField(
            model_name='grant',
            name='valid_until',
            field=models.DateTimeField(blank=True, help_text='In force until this time; empty is without an end.', null=True),
        ),
        migrations.RemoveConstraint(
            model_name='grant',
            name='authsvc_grant_words',
        ),
        migrations.AlterField(
            model_name='grant',
            name='actions',
            field=models.CharField(choices=[('publish', 'Publish'), ('subscribe', 'Subscribe'), ('receive', 'Receive'), ('all', 'All'), ('publish,subscribe', 'Publish, subscribe'), ('publish,receive', 'Publish, receive'), ('subscribe,receive', 'Subscribe, receive')], max_length=17),
        ),
        migrations.AddConstraint(
            model_name='grant',
            constraint=models.CheckConstraint(condition=models.Q(('effect__in', ['allow', 'deny']), ('actions__in', ['publish', 'subscribe', 'receive', 'all', 'publish,subscribe', 'publish,receive', 'subscribe,receive'])), name='authsvc_grant_words'),
        ),
        migrations.AddConstraint(
            model_name='grant',
            constraint=models.CheckConstraint(condition=models.Q(('valid_from', None), ('valid_until', None), ('valid_until__gt', models.F('valid_from')), _connector='OR'), name='authsvc_grant_period', violation_error_message='The period must end after it begins.'),
        ),
        migrations.AlterField(
            model_name='grant',
            name='subject',
            field=authsvc.models.SubjectField(db_index=True, help_text='everyone, type:TYPE, group:GROUP or key:KEY, such as key:account/ingest', max_length=260),
        ),
        migrations.AddField(
            model_name='denial',
            name='broker',
            field=models.CharField(blank=True, db_default='', default='', help_text='the broker that asked last', max_length=100),
        ),
        migrations.AddField(
            model_name='denial',
            name='dismissed_at',
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.CreateModel(
            name='BrokerUse',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('address', models.CharField(blank=True, max_length=45)),
                ('count', models.PositiveBigIntegerField(default=0)),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField(db_index=True)),
                ('current_at', models.DateTimeField(blank=True, null=True)),
                ('previous_at', models.DateTimeField(blank=True, null=True)),
                ('broker', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='uses', to='authsvc.broker')),
            ],
            options={
                'ordering': ['-last_at'],
                'constraints': [models.UniqueConstraint(fields=('broker', 'address'), name='authsvc_brokeruse_address')],
            },
        ),
        migrations.AlterModelOptions(
            name='account',
            options={'ordering': ['username'], 'verbose_name': 'service account'},
        ),
    ]
