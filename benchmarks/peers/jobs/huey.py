"""The job as a task of Huey, on the storage that the environment names."""

import json
import os

from huey import PostgresHuey, SqliteHuey

from benchmarks.peers.tally import mark

_dsn = os.environ["PEERS_DSN"]
_options = json.loads(os.environ["PEERS_HUEY"])
if _dsn.startswith("sqlite:"):
    huey = SqliteHuey("peers", filename=_dsn.removeprefix("sqlite://"), **_options)
else:
    huey = PostgresHuey("peers", dsn=_dsn, **_options)


@huey.task()
def job() -> None:
    """Note the time."""
    mark()
