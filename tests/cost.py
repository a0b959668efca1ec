"""What the database is asked: statements, round trips and transactions, counted where they pass.

On a server that is the socket: a proxy between driver and server reads along, whatever the driver does
(pipelines, prepared statements, several statements in one message). SQLite itself tells of its statements.
"""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from django.db import connection, connections
from django.db.backends.signals import connection_created


class Cost(NamedTuple):
    """What something costs; ``transactions`` are those that ended, also of one statement that only reads."""

    statements: int
    round_trips: int
    transactions: int

    def since(self, before: Cost) -> Cost:
        """Return what came since."""
        return Cost(*(now - then for now, then in zip(self, before, strict=True)))


class Meter:
    """Counts for all connections of the process."""

    def __init__(self) -> None:
        self.total = Cost(0, 0, 0)
        self._lock = threading.Lock()

    def add(self, statements: int = 0, round_trips: int = 0, transactions: int = 0) -> None:
        """Note what has passed."""
        with self._lock:
            old = self.total
            self.total = Cost(old[0] + statements, old[1] + round_trips, old[2] + transactions)

    def of(self, work: Callable[[], object]) -> Cost:
        """Return what it costs to do something."""
        before = self.total
        work()
        return self.total.since(before)


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """Count what goes through connections that are opened in the block; those open before are closed."""
    meter = Meter()
    connection.close()
    begin = _trace_sqlite if connection.vendor == "sqlite" else _read_along
    with begin(meter):
        yield meter
        connection.close()


# SQLite


@contextlib.contextmanager
def _trace_sqlite(meter: Meter) -> Iterator[None]:
    def note(statement: str) -> None:
        if statement != "PRAGMA data_version":  # which asks no file: it is read from shared memory
            meter.add(statements=1, transactions=int(statement == "COMMIT"))

    def trace(connection: Any, **known: object) -> None:
        raw: sqlite3.Connection = connection.connection
        raw.set_trace_callback(note)

    connection_created.connect(trace)
    try:
        yield
    finally:
        connection_created.disconnect(trace)


# Servers


@contextlib.contextmanager
def _read_along(meter: Meter) -> Iterator[None]:
    settings = connections.settings["default"]
    postgresql = connection.vendor == "postgresql"
    server = (settings["HOST"] or "127.0.0.1", int(settings["PORT"] or (5432 if postgresql else 3306)))
    # What is encrypted cannot be read along.
    plain = {"sslmode": "disable", "gssencmode": "disable"} if postgresql else {}
    before = dict(settings)
    with Proxy(server, meter, PostgreSQLReader if postgresql else MySQLReader) as proxy:
        options = {**settings["OPTIONS"], **plain}
        settings.update(HOST="127.0.0.1", PORT=str(proxy.port), OPTIONS=options)
        try:
            yield
        finally:
            settings.update(before)


class PostgreSQLReader:
    """Reads what a PostgreSQL server says on one connection (protocol 3.0)."""

    of_server = True

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._unread = b""
        self._statements = 0

    def read(self, data: bytes) -> None:
        """Go on with what has come."""
        data = self._unread + data
        while len(data) >= 5 and len(data) > (length := int.from_bytes(data[1:5], "big")):
            kind, first = data[:1], data[5:6]
            data = data[length + 1 :]
            if kind in b"CI":  # a statement is complete, or was empty
                self._statements += 1
            elif kind == b"Z" and self._statements:  # ready: the one after the login follows no statement
                self._meter.add(self._statements, 1, int(first == b"I"))
                self._statements = 0
        self._unread = data


class MySQLReader:
    """Reads what a client says to a MariaDB or MySQL server on one connection."""

    of_server = False

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._unread = b""
        self._inside = False

    def read(self, data: bytes) -> None:
        """Go on with what has come."""
        data = self._unread + data
        while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:3], "little")):
            packet, number, data = data[4:end], data[3], data[end:]
            if number == 0 and packet[:1] == b"\x03":  # a command is the first packet of its exchange
                self._query(packet[1:].split(None, 1)[0].upper())
        self._unread = data

    def _query(self, verb: bytes) -> None:
        ends = verb in (b"COMMIT", b"ROLLBACK")
        self._inside = not ends and (self._inside or verb in (b"BEGIN", b"START"))
        self._meter.add(1, 1, int(not self._inside and verb != b"SET"))


class Proxy:
    """Passes on what a client and a server say, and lets a reader of each connection read it first.

    Args:
        server: the server's address.
        meter: what the readers count on.
        reader: makes a reader.
    """

    def __init__(
        self,
        server: tuple[str, int],
        meter: Meter,
        reader: type[PostgreSQLReader] | type[MySQLReader],
    ) -> None:
        self._server, self._meter, self._reader = server, meter, reader
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        _shut(self._door)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return  # it is closed
            server = socket.create_connection(self._server)
            reader = self._reader(self._meter)
            for source, to in ((client, server), (server, client)):
                to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                reads = reader if (source is server) == reader.of_server else None
                threading.Thread(target=_pass_on, args=(source, to, reads), daemon=True).start()


def _pass_on(source: socket.socket, to: socket.socket, reader: PostgreSQLReader | MySQLReader | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if reader is not None:
                reader.read(data)  # before: who has the answer finds it counted
            to.sendall(data)
    _shut(source)
    _shut(to)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
