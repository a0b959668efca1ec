"""The documented examples, for type checkers: nothing here is run, mypy and pyright read it."""

from typing import assert_type

from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse

from jobify_django import Job, QueueFull, QueueStats, queue, task
from jobify_django.asgi import lifespan


@task(priority="critical")
def charge_payment(order_id: str) -> str:
    return f"charged:{order_id}"


@task(queue="mail")
async def send_receipt(order_id: str) -> None: ...


@task
def add(a: int, b: int = 2) -> int:
    return a + b


def checkout(request: HttpRequest) -> HttpResponse:
    try:
        job = charge_payment.push("ord-1")
    except QueueFull as full:
        return HttpResponse(status=503, headers={"Retry-After": str(full.retry_after)})
    job.wait(timeout=5)
    assert_type(job.result(), str)
    return HttpResponse(job.id)


async def acheckout(request: HttpRequest) -> HttpResponse:
    job = await charge_payment.push("ord-1")
    assert_type(job, Job[str])
    await job.wait()
    assert_type(await job, str)
    twin = await charge_payment.apush("ord-1")
    assert_type(twin, Job[str])
    receipt = await send_receipt.apush("ord-1")
    assert_type(receipt, Job[None])
    return HttpResponse(job.id)


def tuning() -> None:
    assert_type(add(1), int)
    assert_type(add.using(priority=5, delay=60).push(1).result(), int)
    queue("mail").tune(workers=4, maxsize=500)
    queue("mail").pause()
    assert_type(queue("mail").stats(), QueueStats)


application = lifespan(get_asgi_application())
