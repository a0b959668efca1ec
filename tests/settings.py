"""The settings of the test suite. ``DATABASE_URL`` chooses the database; without it, a real SQLite file."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import environ

env = environ.Env()

# One directory a test run: the process that makes it removes it, and the processes it starts inherit it
# (xdist's workers, `runjobs`, servers).
if "JOBIFY_TEST_DIRECTORY" not in os.environ:
    os.environ["JOBIFY_TEST_DIRECTORY"] = tempfile.mkdtemp(prefix="jobify-tests-")
    atexit.register(shutil.rmtree, os.environ["JOBIFY_TEST_DIRECTORY"], ignore_errors=True)
DIRECTORY = Path(os.environ["JOBIFY_TEST_DIRECTORY"])

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db_url("DATABASE_URL", default=f"sqlite:///{DIRECTORY / 'db.sqlite3'}"),
}
SQLITE_OPTIONS = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;", "timeout": 20}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # A file, never ":memory:": threads and processes must meet in it. `transaction_mode` stays Django's own
    # (DEFERRED), because that is what most projects run.
    DATABASES["default"]["TEST"] = {"NAME": str(DIRECTORY / "test.sqlite3")}
    DATABASES["default"]["OPTIONS"] = SQLITE_OPTIONS

SECRET_KEY = "for-tests-only-never-use-this-anywhere"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
ROOT_URLCONF = "tests.urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast, and guards nothing here

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "jobify_django",
    "tests.app",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

JOBIFY: dict[str, Any] = {}

MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}  # Django 6.1 asks for it
