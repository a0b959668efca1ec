"""The demo's server: uvicorn as a child process."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

HOST = "127.0.0.1"
LONGEST_START = 60.0
LONGEST_STOP = 20.0


class ServerDied(Exception):
    """The server ended, or never came up. The message ends with the last lines of its log."""


class Server:
    """A uvicorn process that serves ``project.asgi`` for as long as the ``with`` block lasts.

    It stands in a session of its own: Ctrl+C reaches the demo, and the demo ends the server in its own time.
    """

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.log = log
        self.url = f"http://{HOST}:{port}/"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "uvicorn", "project.asgi:application", "--lifespan", "on"]
        command += ["--host", HOST, "--port", str(self.port), "--no-access-log", "--log-level", "warning"]
        # Without a limit an open connection would keep uvicorn from ever telling the workers to stop.
        command += ["--timeout-graceful-shutdown", "3", "--backlog", "2048"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_up()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def check(self, patience: float = 0.0) -> None:
        """Raise ``ServerDied`` if it no longer runs, or ends within ``patience`` seconds."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(patience)
            raise self._death(f"The server ended with code {code}.")

    def _wait_until_up(self) -> None:
        ends = time.monotonic() + LONGEST_START
        while time.monotonic() < ends:
            self.check()
            connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
            try:
                connection.request("HEAD", "/static/shop/favicon.svg")
                if connection.getresponse().status < 500:
                    return
            except OSError:
                time.sleep(0.1)
            finally:
                connection.close()
        raise self._death(f"The server did not answer within {LONGEST_START:g} s.")

    def _stop(self) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(LONGEST_STOP)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _death(self, reason: str) -> ServerDied:
        lines = self.log.read_text(errors="replace").splitlines()[-25:]
        return ServerDied("\n".join([f"{reason} The end of {self.log}:", *(lines or ["(it is empty)"])]))


def free_port(first: int) -> int:
    """Return the first port from ``first`` on that nobody listens on."""
    for port in range(first, 65536):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerDied(f"No port from {first} on is free.")
