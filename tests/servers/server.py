"""The ASGI servers: how each is started, and what it was seen to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Server:
    """An ASGI server.

    Attributes:
        name: its distribution and module.
        arguments: what follows ``python -m``, with places for ``{port}`` and ``{workers}``.
        lifespan: whether it sends lifespan events.
        term_code: its exit code after TERM.
        failed_code: its exit code when the application cannot start.
        tells_workers: whether TERM reaches the process the application is in at once, so that its workers
            stop claiming even while a streaming response keeps the server up. Otherwise they go on until the
            response has ended.
        tells_twice: whether a second TERM reaches it too.
    """

    name: str
    arguments: str
    lifespan: bool = True
    term_code: int = 0
    failed_code: int = 0
    tells_workers: bool = True
    tells_twice: bool = False


APP = "tests.servers.asgi:application"

UVICORN = Server(
    "uvicorn",
    f"uvicorn {APP} --port {{port}} --workers {{workers}}",
    term_code=-15,  # it ends itself with the signal it caught
    failed_code=3,
    tells_twice=True,
)
UVICORN_LIMITED = Server(
    "uvicorn", f"{UVICORN.arguments} --timeout-graceful-shutdown 1", term_code=-15, failed_code=3
)
GUNICORN = Server(
    "gunicorn", f"gunicorn {APP} -k asgi --bind 127.0.0.1:{{port}} --workers {{workers}}", failed_code=3
)
# Not less: on a busy machine a new worker takes seconds to start.
GUNICORN_IMPATIENT = Server("gunicorn", f"{GUNICORN.arguments} --timeout 5")
HYPERCORN = Server(
    "hypercorn", f"hypercorn {APP} --bind 127.0.0.1:{{port}} --workers {{workers}}", tells_workers=False
)
# Without a process of its own for the worker.
HYPERCORN_ALONE = Server(
    "hypercorn", f"hypercorn {APP} --bind 127.0.0.1:{{port}} --workers 0 --graceful-timeout 60"
)
GRANIAN = Server(
    "granian", f"granian {APP} --interface asgi --port {{port}} --workers {{workers}}", failed_code=1
)
DAPHNE = Server("daphne", f"daphne {APP} --port {{port}}", lifespan=False)
RUNSERVER = Server(
    "django", "django runserver 127.0.0.1:{port} --noreload --skip-checks", lifespan=False, term_code=-15
)
GUNICORN_PRELOADED = Server(
    "gunicorn",
    "gunicorn tests.servers.preloaded:application --preload -k asgi --bind 127.0.0.1:{port}"
    " --workers {workers}",
)

UVICORN_STARLETTE = Server(
    "uvicorn", "uvicorn tests.servers.starlette:application --port {port}", term_code=-15, failed_code=3
)

WITH_LIFESPAN = (UVICORN, GUNICORN, HYPERCORN, GRANIAN)
