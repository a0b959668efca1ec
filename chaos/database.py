"""The databases of the campaign: each of its own, in a temporary directory, started and ended here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from chaos import process

Restart = Literal["fast", "immediate"]
PATIENCE = 60.0


class Database(ABC):
    """A database that the campaign may do anything to.

    Args:
        directory: where it lives; everything in it is the campaign's.
    """

    kind: str
    server = True
    """Whether it is a process of its own, which can be restarted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abstractmethod
    def url(self, port: int | None = None) -> str:
        """Return its ``DATABASE_URL``, perhaps through another port."""

    @abstractmethod
    def create(self) -> None:
        """Make it, and start it."""

    def stop(self, how: Restart = "fast") -> None:  # noqa: B027 - a file has no server
        """End its server; ``immediate`` is a crash."""

    def start(self) -> None:  # noqa: B027
        """Start its server, and return once it answers."""

    def terminate_all(self) -> int:
        """Cut the connections of everybody else; return how many there were."""
        raise NotImplementedError

    def log_bytes(self) -> int:
        """Return how large its write-ahead log is."""
        return 0


class SQLite(Database):
    """A file."""

    kind = "sqlite"
    server = False

    def url(self, port: int | None = None) -> str:
        return f"sqlite:///{self.directory / 'chaos.sqlite3'}"

    def create(self) -> None:
        pass

    def log_bytes(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "chaos.sqlite3-wal").stat().st_size
        return 0


class Server(Database):
    """A server on a port of its own."""

    account: str
    """The user it runs as where the campaign runs as root."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.data = directory / "data"
        self.log = directory / "server.log"
        self.user = self.account if os.geteuid() == 0 else None
        self.process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        self.data.mkdir()
        if self.user:
            shutil.chown(self.directory, self.user, self.user)
            shutil.chown(self.data, self.user, self.user)
        self._initialise()
        self.start()
        self._first_steps()

    def start(self) -> None:
        self.process = process.start(self._command(), os.environ, self.log, user=self.user)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not start:\n{self.log.read_text()[-2000:]}")
            process.wait(0.02)

    def stop(self, how: Restart = "fast") -> None:
        if self.process is not None:
            process.end(self.process, self._signal(how))
            self.process = None

    def _run(self, *command: str | Path) -> str:
        """Run a command to its end, as the server's user."""
        as_user = {"user": self.user, "group": self.user, "extra_groups": []} if self.user else {}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            **as_user,  # type: ignore[call-overload]
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr or done.stdout}")
        return str(done.stdout)

    @abstractmethod
    def _initialise(self) -> None: ...

    @abstractmethod
    def _first_steps(self) -> None: ...

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    @abstractmethod
    def _signal(self, how: Restart) -> int: ...


class PostgreSQL(Server):
    """A cluster by ``initdb``, with the server's own defaults: every commit is flushed to the disk."""

    kind = "postgresql"
    account = "postgres"

    def url(self, port: int | None = None) -> str:
        return f"postgresql://chaos@127.0.0.1:{port or self.port}/chaos"

    def terminate_all(self) -> int:
        cut = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND usename = 'chaos' AND backend_type = 'client backend'"
        )
        return int(self.ask(cut))

    def ask(self, statement: str) -> str:
        """Run a statement as the superuser, past any proxy, and return its one value."""
        return self._run(
            self._tool("psql"), "-XtAq", "-h", self.directory, "-p", str(self.port), "-U", "postgres",
            "-c", statement, "chaos",
        ).strip()  # fmt: skip

    def log_bytes(self) -> int:
        return int(self.ask("SELECT sum(size) FROM pg_ls_waldir()"))

    def _initialise(self) -> None:
        self._run(self._tool("initdb"), "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8")

    def _first_steps(self) -> None:
        for statement in ("CREATE ROLE chaos LOGIN", "CREATE DATABASE chaos OWNER chaos"):
            self._run(
                self._tool("psql"), "-Xq", "-h", self.directory, "-p", str(self.port), "-U", "postgres",
                "-c", statement, "postgres",
            )  # fmt: skip

    def _command(self) -> Sequence[str | Path]:
        return [
            self._tool("postgres"), "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1",
            "-k", self.directory, "-c", "max_connections=200",
        ]  # fmt: skip

    def _answers(self) -> bool:
        command = [self._tool("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _signal(self, how: Restart) -> int:
        return signal.SIGQUIT if how == "immediate" else signal.SIGINT

    @staticmethod
    def _tool(name: str) -> Path:
        installed = sorted(
            Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name)
        )
        found = shutil.which(name, path=os.pathsep.join([*map(str, reversed(installed)), os.environ["PATH"]]))
        if found is None:
            raise RuntimeError(f"PostgreSQL's {name!r} is not installed: apt-get install postgresql")
        return Path(found)


class MariaDB(Server):
    """A MariaDB server with its own defaults: every commit is flushed to the disk."""

    kind = "mariadb"
    account = "mysql"

    def url(self, port: int | None = None) -> str:
        return f"mysql://chaos:chaos@127.0.0.1:{port or self.port}/chaos"

    def terminate_all(self) -> int:
        others = "SELECT id FROM information_schema.processlist WHERE user = 'chaos'"
        ids = self.ask(others).split()
        for id in ids:
            with contextlib.suppress(RuntimeError):  # it may have ended by itself
                self.ask(f"KILL {id}")
        return len(ids)

    def ask(self, statement: str) -> str:
        """Run a statement as root, and return what it prints."""
        options = ("--no-defaults", "-N", "-B", "-u", "root", "-S", self._socket)
        return self._run("mariadb", *options, "-e", statement)

    def _initialise(self) -> None:
        self._run(
            "mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )  # fmt: skip

    def _first_steps(self) -> None:
        self.ask(
            "CREATE DATABASE chaos CHARACTER SET utf8mb4; CREATE USER chaos@'%' IDENTIFIED BY 'chaos'; "
            "GRANT ALL ON chaos.* TO chaos@'%'"
        )

    def _command(self) -> Sequence[str | Path]:
        return [
            shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin") or "mariadbd",
            "--no-defaults", f"--datadir={self.data}", f"--port={self.port}", "--bind-address=127.0.0.1",
            f"--socket={self._socket}", f"--pid-file={self.directory / 'pid'}", "--skip-name-resolve",
        ]  # fmt: skip

    def _answers(self) -> bool:
        with contextlib.suppress(RuntimeError):
            return bool(self.ask("SELECT 1"))
        return False

    def _signal(self, how: Restart) -> int:
        return signal.SIGKILL if how == "immediate" else signal.SIGTERM

    @property
    def _socket(self) -> Path:
        return self.directory / "socket"


KINDS: dict[str, type[Database]] = {one.kind: one for one in (SQLite, PostgreSQL, MariaDB)}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
