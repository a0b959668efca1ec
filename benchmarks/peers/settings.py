"""Django settings of the contestants that are Django apps, from what the cell wrote into the environment."""

import json
import os
from urllib.parse import unquote, urlsplit

SECRET_KEY = "peers"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING_CONFIG = None

_dsn = os.environ["PEERS_DSN"]
_url = urlsplit(_dsn)
if _url.scheme == "sqlite":
    _database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": _url.path,
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }
else:
    _database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.lstrip("/"),
        "USER": unquote(_url.username or ""),
        "PASSWORD": unquote(_url.password or ""),
        "HOST": _url.hostname or "",
        "PORT": str(_url.port or ""),
    }

_ours = json.loads(os.environ.get("PEERS_SETTINGS", "{}"))
# Django's default is 0: workers that close what Django closes between two requests connect anew each time.
_database["CONN_MAX_AGE"] = _ours.pop("CONN_MAX_AGE", 0)
DATABASES = {"default": _database}
globals().update(_ours)
