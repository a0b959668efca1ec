import asyncio

from django.conf import settings

from jobify_django import Job, task
from jobify_django.pool import serving

settings.configure(JOBIFY={"STORE": "memory", "WORKERS": 2, "MAXSIZE": 4})


@task
async def charge_payment(order: int) -> str:
    await asyncio.sleep(0.5)
    return f"charged order {order}"


async def main() -> None:
    async with serving():
        jobs: list[Job[str]] = []
        for order in range(12):
            jobs.append(await charge_payment.apush(order))  # waits while four jobs wait
            print("pushed order", order)
        print(await jobs[-1])


asyncio.run(main())
