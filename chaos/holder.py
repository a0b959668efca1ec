"""A session that holds a snapshot until it is killed: ``python -m chaos.holder``."""

from __future__ import annotations

import signal


def main() -> None:
    """Read once in a transaction that never ends, and print the session's number."""
    import django
    from django.db import connection

    django.setup()
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM jobify_job")
        cursor.execute("SELECT pg_backend_pid()")
        print("holding", cursor.fetchone()[0], flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
