"""Django settings of the long run, from the environment."""

import os
from urllib.parse import urlsplit

_server = urlsplit(os.environ["LONG_RUN_DATABASE"])

SECRET_KEY = "benchmarks"
USE_TZ = True
INSTALLED_APPS = ["jobify_django", "benchmarks.long_run.app"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _server.hostname,
        "PORT": _server.port,
        "USER": _server.username,
        "PASSWORD": _server.password or "",
        "NAME": _server.path.strip("/"),
    }
}
JOBIFY = {"WORKERS": int(os.environ.get("LONG_RUN_WORKERS", "10")), "MAXSIZE": 100_000}
