"""An app that stops its own process (SIGSTOP) in the middle of its first claim, before the commit."""

import signal
import threading
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig
from django.db.backends.signals import connection_created

CLAIM = "WITH next AS MATERIALIZED"


class Freezing(AppConfig):
    name = "tests.servers"
    label = "freezing"

    def ready(self) -> None:
        frozen = False

        def freeze(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
            nonlocal frozen
            result = execute(sql, params, many, context)
            if not frozen and sql.strip().startswith(CLAIM) and context["cursor"].rowcount:
                frozen = True
                # To this thread: one that the whole process gets stops another thread first, and this one
                # goes on to its commit until then.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return result

        def watch(connection: Any, **kwargs: Any) -> None:
            connection.execute_wrappers.append(freeze)

        connection_created.connect(watch, weak=False)
