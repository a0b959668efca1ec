"""An app whose process has pools that work, and never gets any further."""

import asyncio

from django.apps import AppConfig

from jobify_django.pool.service import Service


class Dawdling(AppConfig):
    name = "tests.servers"
    label = "dawdling"

    def ready(self) -> None:
        start = Service.start

        async def start_and_stay(service: Service) -> None:
            await start(service)
            await asyncio.Event().wait()

        Service.start = start_and_stay  # type: ignore[method-assign]
