"""The settings of the demo. Everything has a default; the environment, or a ``.env`` file, changes it."""

from pathlib import Path
from typing import Any

import environ
from django.core.management.utils import get_random_secret_key

ROOT = Path(__file__).resolve().parent.parent

env = environ.Env()
if (ROOT / ".env").is_file():
    env.read_env(ROOT / ".env")

# What the demo writes: its database and the server's log.
DEMO_DIRECTORY = Path(env.str("DEMO_DIRECTORY", default=str(ROOT / "var")))

# A key of its own for every process: nothing here is signed by one process and read by another.
SECRET_KEY = env.str("SECRET_KEY", default="") or get_random_secret_key()
DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db_url("DATABASE_URL", default=f"sqlite:///{DEMO_DIRECTORY / 'demo.sqlite3'}"),
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Readers and one writer at a time get along in WAL mode; IMMEDIATE makes writers queue for their turn
    # instead of failing half-way through a transaction.
    DATABASES["default"]["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    }

# Small on purpose: four workers and a hundred places are soon too few, and that is what the demo shows.
JOBIFY: dict[str, Any] = {
    "STORE": "database",
    "WORKERS": 4,
    "MAXSIZE": 100,
    "PRIORITIES": {"critical": 100, "user_flow": 50, "background": 5},
    "PUSH_TIMEOUT": 2,
    "GRACE": 5,
    "RETENTION": 6 * 3600,
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "jobify_django",
    "project.shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "jobify_django.middleware.QueueFullMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
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
ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
STATIC_URL = "/static/"
STATICFILES_DIRS = [ROOT / "project" / "static"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = []  # the only password is made by the demo itself
USE_TZ = True
TIME_ZONE = "UTC"

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", default="WARNING")},
}
