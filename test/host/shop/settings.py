"""Settings of the shop: all that a Django application needs to become a node is
DATABASES, marmot.py, and the last line."""
import os

BASE = os.environ["SHOP_DIR"]
SECRET_KEY = "for tests alone"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "shop.marmot.Shop"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
ROOT_URLCONF = "shop.views"
USE_TZ = True
LOGGING = {"version": 1, "disable_existing_loggers": False, "handlers": {"out": {"class": "logging.StreamHandler"}}, "root": {"handlers": ["out"], "level": "WARNING"}}

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(BASE, "shop.db"),
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}
MARMOT_EXTENSION = os.environ.get("SHOP_EXTENSION")  # without it: a shop on one machine
MARMOT_CONFIG = os.environ.get("SHOP_CONFIG")
DEFAULT_AUTO_FIELD = "shop.marmot.MarmotId"
