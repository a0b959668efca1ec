"""The test suite's settings, for processes: ``TEST_JOBIFY`` (JSON), ``TEST_APPS``, ``TEST_LOG``."""

from typing import Any

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, env

JOBIFY: dict[str, Any] = env.json("TEST_JOBIFY", default={})
INSTALLED_APPS = [*INSTALLED_APPS, *env.list("TEST_APPS", default=[])]
ROOT_URLCONF = "tests.servers.urls"
MIDDLEWARE: list[str] = []

if env.bool("TEST_LOG", default=False):
    LOGGING: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"stderr": {"class": "logging.StreamHandler"}},
        "loggers": {"jobify": {"handlers": ["stderr"], "level": "INFO"}},
    }
