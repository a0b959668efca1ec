"""Django settings of every process of the campaign, from the environment that ``chaos.ground`` makes."""

import environ

env = environ.Env()

SECRET_KEY = "chaos"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["jobify_django", "chaos.app"]
DATABASES = {"default": env.db_url("DATABASE_URL", default="sqlite:///chaos.sqlite3")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = None
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
JOBIFY = env.json("CHAOS_JOBIFY", default={})
