"""A process that counts waiting and running jobs again and again: ``python -m chaos.sampler``."""

from __future__ import annotations

import os
import signal
import sys
import time

from chaos.ledger import Ledger

EVERY = 0.01
WRITE_EVERY = 0.5
MARGIN = 0.5
"""Seconds that a lease must have left to count as held: clocks of two processes are read at two moments."""

COUNT = """
    SELECT (SELECT count(*) FROM jobify_job WHERE queue = 'default' AND status = 'waiting'),
           (SELECT count(*) FROM jobify_job WHERE queue = 'default' AND status = 'waiting' AND attempt = 0),
           (SELECT count(*) FROM jobify_job
            WHERE queue = 'default' AND status = 'running' AND lease_until > %s)"""


def main() -> None:
    """Sample until told to stop; one line of the ledger holds the highest counts since the line before."""
    import django
    from django.db import Error, connection

    django.setup()
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    ledger = Ledger("samples")
    samples, deepest, freshest, busiest = 0, 0, 0, 0
    written = time.monotonic()
    parent = os.getppid()
    while not stopped and os.getppid() == parent:
        try:
            with connection.cursor() as cursor:
                cursor.execute(COUNT, [time.time() + MARGIN])
                waiting, fresh, running = cursor.fetchone()
        except Error:
            connection.close()
            time.sleep(0.1)
            continue
        samples += 1
        deepest, freshest, busiest = max(deepest, waiting), max(freshest, fresh), max(busiest, running)
        if time.monotonic() - written > WRITE_EVERY:
            ledger.write("M", samples, deepest, freshest, busiest)
            samples = deepest = freshest = busiest = 0
            written = time.monotonic()
        time.sleep(EVERY)
    ledger.write("M", samples, deepest, freshest, busiest)


if __name__ == "__main__":
    sys.exit(main())
