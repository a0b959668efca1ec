"""An application with a lifespan of its own, and Django in it: a Starlette project's ``asgi.py``."""

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

from django.core.asgi import get_asgi_application
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from jobify_django.asgi import lifespan

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.servers.settings")

site = get_asgi_application()
logger = logging.getLogger("jobify.test")


@contextlib.asynccontextmanager
async def prepared(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    if os.environ.get("TEST_BROKEN"):
        raise RuntimeError("no pantry")
    logger.info("event=inner-started")
    yield {"greeting": "prepared"}
    logger.info("event=inner-stopped")


async def greet(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.greeting)


application = lifespan(Starlette(routes=[Route("/greet", greet), Mount("/", app=site)], lifespan=prepared))
