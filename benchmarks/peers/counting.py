"""A relay before a PostgreSQL server that counts the statements which pass it.

It knows as much of the protocol as it takes to tell the messages apart: a simple query (``Q``) and an
execution (``E``) count as one statement each.
"""

from __future__ import annotations

import asyncio
import threading

_STATEMENTS = frozenset(b"QE")
_VERSION_3 = 3 << 16


class Count:
    """Reads a client's bytes as they come, and counts the statements among its messages."""

    def __init__(self) -> None:
        self.statements = 0

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a client's messages on until it goes away."""
        while True:  # before the version comes questions about encryption, which have no kind
            head = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(head) - 4)
            writer.write(head + body)
            await writer.drain()
            if int.from_bytes(body[:4]) >> 16 == _VERSION_3 >> 16:
                break
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:]) - 4)
            self.statements += head[0] in _STATEMENTS
            writer.write(head + body)
            await writer.drain()


class CountingRelay:
    """Listens on a free loopback port from a thread of its own; ``statements`` says what has passed."""

    def __init__(self, host: str, port: int) -> None:
        self._server_address = (host, port)
        self._count = Count()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0

    @property
    def statements(self) -> int:
        """How many statements clients have sent so far."""
        return self._count.statements

    def __enter__(self) -> CountingRelay:
        threading.Thread(target=self._serve, daemon=True).start()
        if not self._ready.wait(10):
            raise RuntimeError("the counting relay did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self._server = server
        self.port = server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._server_address)
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(self._count.relay(reader, server_writer)),
                    asyncio.create_task(_copy(server_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            server_writer.close()
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
