"""One page pushes a job, one answers for ever, one answers."""

import asyncio
from collections.abc import AsyncIterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from benchmarks.tasks.tasks import sleep


async def push(request: HttpRequest) -> HttpResponse:
    job = await sleep.apush(float(request.GET["seconds"]))
    return HttpResponse(job.id)


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def events() -> AsyncIterator[bytes]:
        while True:
            yield b"data: still here\n\n"
            await asyncio.sleep(0.1)

    return StreamingHttpResponse(events(), content_type="text/event-stream")


async def up(request: HttpRequest) -> HttpResponse:
    return HttpResponse("up")


urlpatterns = [path("push", push), path("stream", stream), path("up", up)]
