"""An app that sends its own process TERM right before a statement: ``TEST_TERM_AT`` is how it begins, and the
how many-th of them it is, as in ``COMMIT:2``."""

import itertools
import os
import signal
from typing import Any

from django.apps import AppConfig
from django.db.backends.signals import connection_created


class Ending(AppConfig):
    name = "tests.servers"
    label = "ending"

    def ready(self) -> None:
        beginning, _, number = os.environ["TEST_TERM_AT"].rpartition(":")
        seen = itertools.count(1)

        def look(statement: str) -> None:
            if " ".join(statement.split()).startswith(beginning) and next(seen) == int(number):
                os.kill(os.getpid(), signal.SIGTERM)

        def trace(connection: Any, **kwargs: Any) -> None:
            connection.connection.set_trace_callback(look)

        connection_created.connect(trace, weak=False)
