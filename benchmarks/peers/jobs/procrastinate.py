"""The job as a task of procrastinate, and its worker: ``python -m benchmarks.peers.jobs.procrastinate``."""

import os
import sys

from procrastinate import App, PsycopgConnector

from benchmarks.peers.tally import mark

app = App(connector=PsycopgConnector(conninfo=os.environ["PEERS_DSN"]))


@app.task(name="job")
def job() -> None:
    """Note the time."""
    mark()


@app.task(name="async_job")
async def async_job() -> None:
    """Note the time, on the event loop."""
    mark()


def main() -> None:
    """Run the worker; the arguments are the number of jobs at once and when to delete a job."""
    app.run_worker(concurrency=int(sys.argv[1]), delete_jobs=sys.argv[2])


if __name__ == "__main__":
    from benchmarks.peers.jobs import procrastinate  # its tasks are known by this name

    procrastinate.main()
