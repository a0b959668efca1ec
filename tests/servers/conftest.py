from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from urllib.error import HTTPError
from urllib.parse import urlencode

import pytest

from tests.child import Child, until
from tests.port import free_port
from tests.requirement import need_module
from tests.servers.server import Server


class Site(Child):
    """A server process, and the site it serves."""

    port: int

    def get(self, path: str, /, **query: str) -> str:
        with urllib.request.urlopen(self._url(path, query), timeout=30) as response:
            return response.read().decode()  # type: ignore[no-any-return]

    def serves(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self} has ended:\n{self.output}")
        try:
            self.get("/who")
        except HTTPError as error:
            error.close()  # it holds the connection
            return False
        except OSError:
            return False
        return True

    def ask(self, path: str, /, **query: str) -> http.client.HTTPConnection:
        """Ask for a page, and return the connection without waiting for the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", f"{path}?{urlencode(query)}")
        return connection

    @contextmanager
    def open_stream(self) -> Iterator[None]:
        """Hold a response that goes on for ever open while the block runs."""
        with (
            closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection,
            self._stream(connection) as response,
        ):
            assert response.readline() == b"still here\n"
            yield

    @staticmethod
    def _stream(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
        connection.request("GET", "/stream")
        return connection.getresponse()

    def _url(self, path: str, query: dict[str, str]) -> str:
        return f"http://127.0.0.1:{self.port}{path}?{urlencode(query)}"


class Serve:
    def __init__(self, environment: dict[str, str], stack: ExitStack) -> None:
        self._environment = environment
        self._stack = stack

    def __call__(self, server: Server, *, workers: int = 1, grace: float = 0.3, **variables: str) -> Site:
        """Start a server, which need not come up."""
        need_module(server.name)
        port = free_port()
        arguments = server.arguments.format(port=port, workers=workers).split()
        settings = {"TEST_LOG": "1", "TEST_JOBIFY": json.dumps({"GRACE": grace})}
        site = Site(["-m", *arguments], {**self._environment, **settings, **variables})
        site.port = port
        return self._stack.enter_context(site)

    def up(self, server: Server, *, workers: int = 1, grace: float = 0.3, **variables: str) -> Site:
        """Start a server, and wait until it serves."""
        site = self(server, workers=workers, grace=grace, **variables)
        until(site.serves, f"{site} serving")
        return site


@pytest.fixture
def serve(child_environment: dict[str, str]) -> Iterator[Serve]:
    environment = {**child_environment, "DJANGO_SETTINGS_MODULE": "tests.servers.settings"}
    with ExitStack() as stack:
        yield Serve(environment, stack)
