"""Push, claim, settle and the admin's snapshot, beside more and more rows that wait or have ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.growth.curve import Chart, Curve
from benchmarks.growth.site import milliseconds, site

IDS = {"sqlite": "printf('%036d', i)", "postgresql": "lpad(i::text, 36, '0')"}
NUMBERS = {
    "sqlite": """
        WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < {rows})
        {insert} FROM s""",
    "postgresql": "{insert} FROM generate_series(1, {rows}) s(i)",
}
INSERT = """
    INSERT INTO jobify_job (id, queue, task, arguments, priority, status, sequence, order_key, pushed_at,
                            eligible_at, started_at, ended_at, attempt, crashes, pool, cancel_requested)
    SELECT {id}, 'default', 'benchmarks.growth.app.tasks.noop', '[[],{{}}]', 0, '{status}', i, 0, 0, 0,
           {ended}, {ended}, 0, 0, '', FALSE"""


def waiting(x: int, server: str, scale: float) -> dict[str, Any]:
    """Measure beside so many waiting jobs."""
    return _point(x, server, scale, "waiting")


def ended(x: int, server: str, scale: float) -> dict[str, Any]:
    """Measure beside so many jobs that have ended."""
    return _point(x, server, scale, "successful")


def _point(rows: int, server: str, scale: float, status: str) -> dict[str, Any]:
    with site(server, MAXSIZE=5_000_000):
        from django.contrib.auth.models import User
        from django.test import Client

        from benchmarks.growth.app.tasks import noop
        from jobify_django.conf import get_settings
        from jobify_django.outcome import succeeded
        from jobify_django.stores import stores
        from jobify_django.stores.value import Demand, Lane

        queue = get_settings().queue("default")
        store = stores.of(queue)
        noop.push()
        _fill(rows, status)
        store.repair()

        def turn() -> tuple[float, float]:
            began = time.perf_counter()
            claims = store.claim(Demand("a-pool", {"default": Lane(10, 60.0)})).claims
            claimed = time.perf_counter()
            store.settle([succeeded(one) for one in claims])
            return claimed - began, time.perf_counter() - claimed

        times = max(10, round(200 * scale))
        noop.push_many([()] * 10 * (times + 1))
        turn()
        turns = [turn() for _ in range(times)]
        client = Client()
        client.force_login(User.objects.create_superuser("admin"))
        page = "/admin/jobify_django/overview/"
        assert client.get(page).status_code == 200
        looks = max(3, round(20 * scale))
        return {
            "push_ms": milliseconds(_times(times, noop.push)),
            "claim_ms": milliseconds([claim for claim, _ in turns]),
            "settle_ms": milliseconds([settle for _, settle in turns]),
            "stats_ms": milliseconds(_times(looks, lambda: store.stats([queue]))),
            "overview_ms": milliseconds(_times(looks, lambda: client.get(page))),
        }


def _times(number: int, call: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(number):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return found


def _fill(rows: int, status: str) -> None:
    from django.db import connection

    if not rows:
        return
    over = "i" if status == "successful" else "NULL"
    insert = INSERT.format(id=IDS[connection.vendor], status=status, ended=over)
    with connection.cursor() as cursor:
        cursor.execute(NUMBERS[connection.vendor].format(insert=insert, rows=rows))
        if connection.vendor == "postgresql":
            cursor.execute("SELECT setval('jobify_job_number', %s)", [rows + 1])
            cursor.execute("VACUUM ANALYZE jobify_job")
        else:
            cursor.execute("UPDATE jobify_queue SET sequence = %s", [rows + 1])


SERIES = {
    "push_ms": "a push",
    "claim_ms": "a claim of 10",
    "settle_ms": "a settlement of 10",
    "stats_ms": "store.stats",
    "overview_ms": "the admin's overview",
}
XS = (1, 10_000, 100_000, 1_000_000)
CONTESTANTS = {"waiting": waiting, "ended": ended}
CURVES = {
    "waiting": Curve(
        waiting,
        XS,
        [Chart("waiting", "Beside jobs that wait", "waiting jobs", "milliseconds", SERIES, log_y=True)],
    ),
    "ended": Curve(
        ended,
        XS,
        [Chart("ended", "Beside jobs that have ended", "ended jobs", "milliseconds", SERIES, log_y=True)],
    ),
}
