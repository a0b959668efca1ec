"""What ASGI servers do with the workers inside them: ``python -m benchmarks.servers`` prints it as Markdown.

Each figure comes from a server process of its own, with a SQLite file of its own, on the loopback interface.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import django

from benchmarks import harness

APP = "benchmarks.site.asgi:application"
WHOLE = 34.0
"""Seconds of the job that a stopping server is to let end: more than the 30 s that some servers give."""

PATIENCE = 10.0
"""Seconds after which something counts as not happening."""

ORPHAN_PATIENCE = 12.0
BETWEEN_SIGNALS = 2.0
FLAG = 3
LANES = 3


@dataclass(frozen=True)
class Server:
    """A way to start a server.

    Attributes:
        name: how the tables call it.
        command: what follows ``python -m``.
        two: the option for two worker processes, where there is one.
        limit: the option that limits how long an open response holds a stopping server, in ``FLAG`` seconds.
        asgi: whether it is an ASGI server; another one answers once a response has ended.
    """

    name: str
    command: str
    two: str = ""
    limit: str = ""
    asgi: bool = True

    @property
    def distribution(self) -> str:
        """The package it comes from."""
        return self.command.split()[0]


SERVERS = (
    Server(
        "uvicorn",
        f"uvicorn {APP} --port {{port}}",
        limit=f"--timeout-graceful-shutdown {FLAG}",
    ),
    Server(
        "uvicorn --workers 2",
        f"uvicorn {APP} --port {{port}} --workers 2",
        two=" ",
        limit=f"--timeout-graceful-shutdown {FLAG}",
    ),
    Server(
        "gunicorn -k asgi",
        f"gunicorn {APP} -k asgi --bind 127.0.0.1:{{port}}",
        two="--workers 2",
        limit=f"--graceful-timeout {FLAG}",
    ),
    Server(
        "gunicorn -k asgi --graceful-timeout 60",
        f"gunicorn {APP} -k asgi --bind 127.0.0.1:{{port}} --graceful-timeout 60",
        two="--workers 2",
    ),
    Server(
        "hypercorn",
        f"hypercorn {APP} --bind 127.0.0.1:{{port}}",
        two="--workers 2",
        limit=f"--graceful-timeout {FLAG}",
    ),
    Server(
        "hypercorn --workers 0",
        f"hypercorn {APP} --bind 127.0.0.1:{{port}} --workers 0",
        limit=f"--graceful-timeout {FLAG}",
    ),
    Server(
        "granian",
        f"granian {APP} --interface asgi --port {{port}}",
        two="--workers 2",
        limit=f"--workers-kill-timeout {FLAG}",
    ),
    Server("daphne", f"daphne {APP} --port {{port}}"),
    Server("manage.py runserver", "django runserver 127.0.0.1:{port} --noreload --skip-checks", asgi=False),
)


class Site:
    """A running server.

    Args:
        server: which one.
        directory: where its database is made.
        flags: further options.
        jobify: its ``settings.JOBIFY``.
    """

    def __init__(self, server: Server, directory: Path, flags: str = "", **jobify: object) -> None:
        self._database = directory / f"{free_port()}.sqlite3"
        shutil.copy(directory / "empty.sqlite3", self._database)
        self.port = free_port()
        self._log = self._database.with_suffix(".log")
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *server.command.format(port=self.port).split(), *flags.split()],
                env=environment(self._database, **jobify),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    # What it is asked

    def get(self, path: str) -> str:
        """Return what a page says; raises ``OSError`` when the server does not answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def serves(self) -> bool:
        """Whether it answers."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args} has ended:\n{self._log.read_text()}")
        with suppress(OSError, http.client.HTTPException):
            return self.get("/up") == "up"
        return False

    @contextmanager
    def open_stream(self) -> Iterator[None]:
        """Hold a response open that never ends."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", "/stream")
            with connection.getresponse() as response:
                response.readline()
                yield

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that was started."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)

    def press_ctrl_c(self) -> None:
        """Do what a terminal does: send INT to every process of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)

    # What is seen of it

    def pools(self) -> int:
        """Return how many pools are alive."""
        return int(self._query("SELECT count(*) FROM jobify_pool"))

    def job(self) -> str:
        """Return how its only job stands."""
        return str(self._query("SELECT max(status) FROM jobify_job"))

    def says(self, text: str) -> bool:
        """Whether it has logged a text."""
        return text in self._log.read_text()

    def has_ended(self) -> bool:
        """Whether the process that was started has ended."""
        return self.process.poll() is not None

    def is_gone(self) -> bool:
        """Whether no process of it is left."""
        self.process.poll()
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid and fields[0] != "Z":
                    return False
        return True

    def _query(self, sql: str) -> Any:
        with closing(sqlite3.connect(self._database, timeout=20)) as database:
            return database.execute(sql).fetchone()[0]

    # Its end

    def close(self) -> None:
        """End every process of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(server: Server, directory: Path, flags: str = "", grace: float = 1.0) -> Iterator[Site]:
    """Run a server until the block ends."""
    site = Site(server, directory, flags, GRACE=grace)
    try:
        if seconds(site.serves, 60) is None:
            raise RuntimeError(f"{server.name} does not answer")
        yield site
    finally:
        site.close()


def seconds(happened: Callable[[], object], patience: float = PATIENCE) -> float | None:
    """Return the seconds until ``happened()`` is true, or ``None``."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > patience:
            return None
        time.sleep(0.02)
    return time.monotonic() - began


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def environment(database: Path, **jobify: object) -> dict[str, str]:
    """Return the environment of a server process."""
    return {
        **os.environ,
        "PYTHONPATH": str(harness.ROOT),
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
        "BENCH_DATABASE": str(database),
        "BENCH_JOBIFY": json.dumps(jobify),
    }


# What is measured: each returns one cell of a table


def lifespan(server: Server, directory: Path) -> str:
    with serving(server, directory) as site:
        site.get("/push?seconds=0")
        if seconds(lambda: site.job() == "successful", 5) is not None:
            return "yes"
        warned = site.says("no worker is alive for queue 'default'")
        return "no; push warns" if warned else "no, and push is silent"


def two_workers(server: Server, directory: Path) -> str:
    if not server.two:
        return ""
    with serving(server, directory, server.two) as site:
        seconds(lambda: site.pools() == 2, 5)
        return f"{site.pools()} pools"


def failed_startup(server: Server, directory: Path) -> str:
    site = Site(server, directory, WORKERS=0)
    try:
        if seconds(site.has_ended) is None:
            return "serves without workers"
        reason = "with the reason" if site.says("JOBIFY['WORKERS'] is 0") else "without the reason"
        return f"exit {site.process.returncode}, {reason}"
    finally:
        site.close()


def idle(server: Server, directory: Path, number: signal.Signals) -> str:
    with serving(server, directory) as site:
        seconds(site.pools, 2)
        site.signal(number)
        return end_of(site)


def whole_job(server: Server, directory: Path) -> str:
    with serving(server, directory, grace=WHOLE + 10) as site:
        if not start_job(site, WHOLE):
            return ""
        site.signal(signal.SIGTERM)
        took = seconds(site.has_ended, WHOLE + PATIENCE)
        return f"{job_of(site)}, {at(took)}"


def second_term(server: Server, directory: Path) -> str:
    return second(server, directory, lambda site: site.signal(signal.SIGTERM))


def second_ctrl_c(server: Server, directory: Path) -> str:
    return second(server, directory, Site.press_ctrl_c)


def second(server: Server, directory: Path, wish: Callable[[Site], None]) -> str:
    with serving(server, directory, grace=600) as site:
        if not start_job(site, 3600):
            return ""
        wish(site)
        time.sleep(BETWEEN_SIGNALS)
        if site.has_ended():
            return f"the first ends it; {job_of(site)}"
        wish(site)
        return f"{end_of(site)}; {job_of(site)}"


def orphaned(server: Server, directory: Path) -> str:
    with serving(server, directory, server.two) as site:
        if not seconds(site.pools, 2) or not server.two:
            return ""
        site.signal(signal.SIGKILL)
        pools = seconds(lambda: site.is_gone() or not site.pools(), ORPHAN_PATIENCE)
        gone = seconds(site.is_gone, 1)
        workers = "workers go on" if gone is None else "workers end"
        return f"{workers}, {'pools too' if pools is None else f'pools end, {at(pools)}'}"


def open_stream(server: Server, directory: Path, number: signal.Signals) -> tuple[str, str]:
    if not server.asgi:
        return "", ""
    with serving(server, directory) as site, site.open_stream():
        has_pool = seconds(site.pools, 2) is not None
        site.signal(number)
        began = time.monotonic()
        stopped = seconds(lambda: not site.pools() or site.has_ended())
        claiming = ("goes on" if stopped is None else at(stopped)) if has_pool else ""
        took = seconds(site.has_ended, max(0.0, PATIENCE - (time.monotonic() - began)))
        ended = "holds it" if took is None else f"{at(time.monotonic() - began)}, exit {code(site)}"
        return claiming, ended


def limited_stream(server: Server, directory: Path) -> str:
    if not server.limit:
        return ""
    with serving(server, directory, server.limit) as site, site.open_stream():
        seconds(site.pools, 2)
        site.signal(signal.SIGTERM)
        return end_of(site)


def start_job(site: Site, length: float) -> bool:
    """Start a job, and return whether anybody runs it."""
    site.get(f"/push?seconds={length:g}")
    return seconds(lambda: site.job() == "running", 5) is not None


def job_of(site: Site) -> str:
    """Return what became of the job, after the server's end."""
    if site.job() == "running":
        return "killed" if site.has_ended() else "runs on"
    return {"successful": "done", "waiting": "handed back"}[site.job()]


def end_of(site: Site) -> str:
    """Wait for the server's end, and return when it came and with which exit code."""
    took = seconds(site.has_ended)
    return f"goes on after {PATIENCE:g} s" if took is None else f"{at(took)}, exit {code(site)}"


def at(took: float | None) -> str:
    """Return seconds for people."""
    return "never" if took is None else f"{took:.1f} s"


def code(site: Site) -> str:
    """Return the exit code as a shell names it."""
    number = site.process.returncode
    return str(number if number >= 0 else 128 - number)


# The tables


@dataclass(frozen=True)
class Row:
    """All that was seen of one server."""

    server: Server
    lifespan: str
    two: str
    failed: str
    term: str
    interrupt: str
    whole: str
    term_twice: str
    ctrl_c_twice: str
    orphaned: str
    stream_term: tuple[str, str]
    stream_interrupt: tuple[str, str]
    limited: str


CELLS: Mapping[str, Callable[[Server, Path], object]] = {
    "lifespan": lifespan,
    "two": two_workers,
    "failed": failed_startup,
    "term": partial(idle, number=signal.SIGTERM),
    "interrupt": partial(idle, number=signal.SIGINT),
    "term_twice": second_term,
    "ctrl_c_twice": second_ctrl_c,
    "orphaned": orphaned,
    "stream_term": partial(open_stream, number=signal.SIGTERM),
    "stream_interrupt": partial(open_stream, number=signal.SIGINT),
    "limited": limited_stream,
}


def measure(servers: Sequence[Server], directory: Path) -> list[Row]:
    """Measure the servers, some at a time: most of the time is waiting."""
    with ThreadPoolExecutor(LANES) as lanes, ThreadPoolExecutor(len(servers)) as sleepers:
        # A long job waits beside everything else.
        wholes = [sleepers.submit(whole_job, server, directory) for server in servers]
        short = [
            {name: lanes.submit(cell, server, directory) for name, cell in CELLS.items()}
            for server in servers
        ]
        rows = []
        for server, whole, cells in zip(servers, wholes, short, strict=True):
            found: dict[str, Any] = {name: cell.result() for name, cell in cells.items()}
            rows.append(Row(server, whole=whole.result(), **found))
            harness.say(f"{server.name}: measured")
    return rows


def document(rows: Sequence[Row]) -> str:
    """Return the tables as Markdown."""
    return "\n\n".join(
        [
            "### Start\n\n"
            + table(
                ("", "lifespan runs", "two server workers", "workers cannot start"),
                [(row.server.name, row.lifespan, row.two, row.failed) for row in rows],
            ),
            "### Stop\n\n"
            + table(
                (
                    "",
                    "TERM, idle",
                    "INT, idle",
                    f"TERM, a job of {WHOLE:g} s runs",
                    "supervisor killed (KILL)",
                ),
                [(row.server.name, row.term, row.interrupt, row.whole, row.orphaned) for row in rows],
            ),
            "### A second signal\n\n"
            + table(
                ("", "TERM, then TERM", "Ctrl+C, then Ctrl+C"),
                [(row.server.name, row.term_twice, row.ctrl_c_twice) for row in rows],
            ),
            "### An open stream\n\n"
            + table(
                ("", "TERM: pool ends", "server ends", "INT: pool ends", "server ends"),
                [(row.server.name, *row.stream_term, *row.stream_interrupt) for row in rows],
            ),
            "### An open stream, with a limit\n\n"
            + table(
                ("", "option", "TERM: server ends"),
                [(row.server.name, f"`{row.server.limit}`", row.limited) for row in rows if row.server.limit],
            ),
        ]
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; an empty cell stands for "not applicable"."""
    lines = [header, ["---"] * len(header), *([cell or "–" for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def versions(servers: Sequence[Server]) -> str:
    """Return what was measured."""
    names = dict.fromkeys(server.distribution for server in servers if server.distribution != "django")
    parts = [f"Python {platform.python_version()}", f"Django {django.get_version()}"]
    return ", ".join([*parts, *(f"{name} {version(name)}" for name in names), platform.system()])


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.servers", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="servers whose name begins so; all by default"
    )
    names = parser.parse_args().names
    servers = [
        server for server in SERVERS if not names or any(server.name.startswith(name) for name in names)
    ]
    with tempfile.TemporaryDirectory(prefix="bench-servers-") as made:
        directory = Path(made)
        empty = environment(directory / "empty.sqlite3")
        subprocess.run([sys.executable, "-m", "django", "migrate", "-v", "0"], env=empty, check=True)
        with closing(sqlite3.connect(directory / "empty.sqlite3")) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        print(f"{versions(servers)}\n\n{document(measure(servers, directory))}")


if __name__ == "__main__":
    main()
