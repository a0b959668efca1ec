"""The README's other examples; ``tests/test_readme.py`` holds them to it."""

import os

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse

from jobify_django import task
from jobify_django.asgi import lifespan

JOBIFY = {
    "WORKERS": 10,  # jobs that one process runs at once
    "MAXSIZE": 1024,  # jobs that may wait, over all processes
    "PRIORITIES": {"critical": 100, "background": 5},
}


@task(priority="critical")
def charge(order_id: str) -> str:
    return f"charged {order_id}"


def checkout(request: HttpRequest) -> HttpResponse:
    job = charge.push("ord-1")  # waits while the queue is full, then raises QueueFull
    return HttpResponse(job.id)


async def acheckout(request: HttpRequest) -> HttpResponse:
    job = await charge.apush("ord-1")
    return HttpResponse(await job)  # waits for the job's end, and gives its result


os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

application = lifespan(get_asgi_application())
