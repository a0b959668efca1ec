"""A site of three pages: one pushes a job, one answers for ever, one says which process it is."""

import asyncio
import os
from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from tests.app.tasks import write_line


async def push(request: HttpRequest) -> HttpResponse:
    print("pushing")
    job = await write_line.apush(request.GET["path"], request.GET["line"])
    return HttpResponse(job.id)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def lines() -> AsyncIterator[bytes]:
        while True:
            yield b"still here\n"
            await asyncio.sleep(0.1)

    return StreamingHttpResponse(lines(), content_type="text/plain")


async def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(os.getpid())


urlpatterns = [path("push", push), path("stream", stream), path("who", who)]
