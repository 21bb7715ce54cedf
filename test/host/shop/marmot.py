"""What makes the shop a node: each connection loads the extension, and new rows
get ids that no other node makes."""
from django.apps import AppConfig
from django.conf import settings
from django.db import connection as default_connection
from django.db import models
from django.db.backends.signals import connection_created


def load(connection, **_):
    if connection.vendor == "sqlite" and settings.MARMOT_EXTENSION:
        db = connection.connection
        db.enable_load_extension(True)
        db.load_extension(settings.MARMOT_EXTENSION)
        db.enable_load_extension(False)
        db.execute("SELECT marmot_init(?)", (settings.MARMOT_CONFIG,)).fetchone()


class Shop(AppConfig):
    name = "shop"

    def ready(self):
        connection_created.connect(load)


class MarmotId(models.BigAutoField):
    """SQLite would give the same next number to two nodes at once."""

    def get_pk_value_on_save(self, instance):
        if not settings.MARMOT_EXTENSION:
            return None
        with default_connection.cursor() as cursor:
            return cursor.execute("SELECT marmot_id(53)").fetchone()[0]
