"""What a crash of the database server takes with it: pushes acknowledged, the server killed, rows counted.

``python -m tests.servers.crash`` prints a line for each setting, as ``docs/explanation/durability.md`` shows
it. Only the server's processes are killed, not the machine: what the operating system was told is kept.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos.database import MariaDB, PostgreSQL, Server
from tests.child import Child, until

PUSH = """
import django
django.setup()
from tests.app.tasks import write_line
while True:
    print(write_line.push("nowhere", "never").id)
"""


@dataclass(frozen=True)
class Setting:
    """A server's setting.

    Attributes:
        kind: of which server.
        name: as the docs call it.
        options: what is added to its command line.
        statement: what is run once the tables are there.
        durable: whether no acknowledged push may be lost when the server's processes are killed.
    """

    kind: type[Server]
    name: str
    options: Sequence[str] = ()
    statement: str = ""
    durable: bool = True

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.name}"


FLUSH = "innodb_flush_log_at_trx_commit={}"
SETTINGS = (
    Setting(PostgreSQL, "synchronous_commit=on"),
    Setting(PostgreSQL, "fsync=off", ("-c", "fsync=off")),
    Setting(PostgreSQL, "synchronous_commit=off", ("-c", "synchronous_commit=off"), durable=False),
    Setting(PostgreSQL, "UNLOGGED", statement="ALTER TABLE jobify_job SET UNLOGGED", durable=False),
    Setting(MariaDB, FLUSH.format(1)),
    Setting(MariaDB, FLUSH.format(2), (f"--{FLUSH.format(2)}",)),
    Setting(MariaDB, FLUSH.format(0), (f"--{FLUSH.format(0)}",), durable=False),
)


@contextmanager
def running(kind: type[Server], options: Sequence[str] = ()) -> Iterator[Server]:
    """A server of its own while the block runs, with the tables of the test project."""

    class Configured(kind):  # type: ignore[misc, valid-type]
        def _command(self) -> Sequence[str | Path]:
            return [*super()._command(), *options]

    directory = Path(tempfile.mkdtemp(prefix="jobify-server-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server = Configured(directory)
        server.create()
        stack.callback(server.stop, "immediate")
        with Child(
            ["-m", "django", "migrate", "--verbosity=0", "--skip-checks"], environment(server)
        ) as migrate:
            assert migrate.end() == 0, migrate.output
        yield server


def environment(server: Server, port: int | None = None, **variables: str) -> Mapping[str, str]:
    """Return the environment of a process of the test project on this server."""
    settings = {"DJANGO_SETTINGS_MODULE": "tests.servers.settings", "DATABASE_URL": server.url(port)}
    return {**os.environ, **settings, "TEST_LOG": "1", **variables}


def kill(server: Server) -> None:
    """Kill all processes of a server, none of which can tidy up."""
    assert server.process is not None
    pid = server.process.pid
    os.kill(pid, signal.SIGSTOP)  # or it would start others
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for child in [*map(int, children), pid]:
        os.kill(child, signal.SIGKILL)
    server.process.wait()
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "the end of its processes")


def crash(setting: Setting, pushes: int = 1_000) -> tuple[int, int]:
    """Return how many pushes were acknowledged until the server was killed, and how many of them are lost."""
    with running(setting.kind, setting.options) as server:
        if setting.statement:
            server.ask(setting.statement)
        jobify = '{"MAXSIZE": 10000000}'
        with Child(["-c", PUSH], environment(server, TEST_JOBIFY=jobify)) as pusher:
            until(lambda: len(pusher.lines) >= pushes or pusher.process.poll() is not None, "the pushes")
            kill(server)
            pusher.end()
            pusher.read_out()
            told = {line for line in pusher.lines if len(line) == 36 and " " not in line}
        server.start()
        rows = server.ask(f"SELECT id FROM {'chaos.' if setting.kind is MariaDB else ''}jobify_job")
        return len(told), len(told - set(rows.split()))


def main() -> int:
    broken = 0
    for setting in SETTINGS:
        told, lost = crash(setting)
        broken += bool(setting.durable and lost)
        print(f"{setting!s:50} acknowledged {told:6}  lost {lost:6}", flush=True)
    return broken


if __name__ == "__main__":
    sys.exit(main())
