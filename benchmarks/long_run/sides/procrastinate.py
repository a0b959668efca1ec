"""procrastinate with its defaults: one worker process, jobs on its event loop, ended ones kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.long_run import started
from benchmarks.long_run.sides import side


def make_app(connector: Any) -> Any:
    """Return an app with the task."""
    from procrastinate import App

    app = App(connector=connector(conninfo=side.DATABASE))

    @app.task(name="job")
    async def job(due: float) -> None:
        await started.job(due)

    return app


def pushing() -> Any:
    """Return an open app that pushes from synchronous code."""
    from procrastinate import SyncPsycopgConnector

    app = make_app(SyncPsycopgConnector)
    app.open()
    return app


def prepare() -> None:
    """Make the tables."""
    with pushing() as app:
        app.schema_manager.apply_schema()


class Push:
    """Pushes a job for each moment, with one app."""

    def __init__(self) -> None:
        self._app: Any = None

    def __call__(self, due: Sequence[float]) -> None:
        self._app = self._app or pushing()
        self._app.tasks["job"].batch_defer(*[{"due": moment} for moment in due])


def work() -> None:
    """Run jobs until told to stop."""
    from procrastinate import PsycopgConnector

    make_app(PsycopgConnector).run_worker(concurrency=side.WORKERS)


if __name__ == "__main__":
    side.main(prepare=prepare, push=Push(), work=work)
