"""Django settings of the contestants, filled from the environment that ``benchmarks.project`` sets."""

import json
import os

SECRET_KEY = "benchmarks"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = json.loads(os.environ.get("BENCH_APPS", '["jobify_django", "benchmarks.tasks"]'))
ROOT_URLCONF = "benchmarks.site.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("BENCH_DATABASE", "bench.sqlite3"),
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
}
JOBIFY = json.loads(os.environ.get("BENCH_JOBIFY", "{}"))
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
