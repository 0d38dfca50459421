"""What an application does with Django on psycopg 3: migrations there and back, and its ORM, each step's outcome printed.
DATABASE_URL says where.

Must not know whether a proxy is there: the test compares what it prints with and without.
"""

import os
from urllib.parse import urlsplit

import django
from django.conf import settings

at = urlsplit(os.environ["DATABASE_URL"])
settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql", "NAME": at.path[1:], "HOST": at.hostname, "PORT": at.port,
            "USER": at.username, "PASSWORD": at.password,
        }
    },
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.admin", "django.contrib.sessions"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    TEMPLATES=[{
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"context_processors": ["django.template.context_processors.request",
                                           "django.contrib.auth.context_processors.auth",
                                           "django.contrib.messages.context_processors.messages"]},
    }],
    SECRET_KEY="of a test",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import IntegrityError, connection, transaction  # noqa: E402
from django.db.migrations.recorder import MigrationRecorder  # noqa: E402
from django.db.models import Count, F  # noqa: E402


def applied():
    done = MigrationRecorder(connection).applied_migrations()
    return len(done), sum(app == "auth" for app, _ in done)


call_command("migrate", verbosity=0, skip_checks=True)
print("migrated:", applied(), len(connection.introspection.table_names()))
call_command("migrate", "auth", "0006", verbosity=0, skip_checks=True)
print("back:", applied())
call_command("migrate", verbosity=0, skip_checks=True)
print("again:", applied(), Permission.objects.count())

with transaction.atomic():
    ada = User.objects.create_user("ada", password="x")
    try:
        with transaction.atomic():
            User.objects.create_user("ada", password="y")
    except IntegrityError as error:
        print("savepoint:", error.__cause__.sqlstate)
    ada.groups.add(*[Group.objects.get_or_create(name=name)[0] for name in ("readers", "writers")])
print("groups:", list(ada.groups.order_by("name").values_list("name", flat=True)), ada.check_password("x"))

User.objects.bulk_create(User(username=f"user {n}") for n in range(500))
print("iterated:", sum(1 for _ in User.objects.order_by("id").iterator(chunk_size=50)))
with transaction.atomic():
    locked = User.objects.select_for_update().get(username="user 7")
    User.objects.filter(pk=locked.pk).update(first_name=F("username"))
    print("iterated inside:", sum(1 for _ in User.objects.iterator(chunk_size=50)))
print("updated:", User.objects.get(username="user 7").first_name)
print("counted:", Group.objects.annotate(n=Count("user")).order_by("name").values_list("name", "n")[0])
done = []
with transaction.atomic():
    transaction.on_commit(lambda: done.append("committed"))
    User.objects.filter(username__startswith="user ").delete()
print("hook:", done, User.objects.count())

for app in ("admin", "sessions", "auth", "contenttypes"):
    call_command("migrate", app, "zero", verbosity=0, skip_checks=True)
print("zero:", applied(), connection.introspection.table_names())
with connection.cursor() as cursor:
    cursor.execute("drop table django_migrations")
