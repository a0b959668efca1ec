"""A TCP proxy that misbehaves: it stalls, goes deaf, cuts, half-closes, delays, loses replies of COMMITs."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Literal

from chaos.database import free_port

Way = Literal["up", "down"]
COMMIT = b"COMMIT"


class Proxy:
    """Passes bytes on between clients and a server on this machine, as long as nothing is asked of it."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self.port = free_port()
        self.links: set[Link] = set()
        self._lock = threading.Lock()
        self.flowing = threading.Event()
        self.flowing.set()
        self.delay = 0.0
        self.commits_to_lose = 0
        self.lost = 0
        self.to_swallow: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=200)
        threading.Thread(target=self._accept, daemon=True).start()

    # What goes wrong

    def stall(self) -> None:
        """Pass nothing on, and close nothing, until ``heal``."""
        self.flowing.clear()

    def deafen(self) -> int:
        """Never pass anything on again on the connections of now; new ones work."""
        return sum(link.deafen() for link in self._all())

    def cut(self) -> int:
        """Close all connections."""
        return sum(link.close() for link in self._all())

    def half_close(self) -> int:
        """End the server's direction of all connections, and leave the other open."""
        return sum(link.half_close() for link in self._all())

    def lose_commits(self, many: int) -> None:
        """Let so many COMMITs through, and cut their connections instead of passing the reply on."""
        self.commits_to_lose = many

    def swallow_commit(self, after: bytes) -> None:
        """Go deaf on the next connection that sends COMMIT for a transaction with these words in it, before
        the COMMIT arrives."""
        self.to_swallow = after

    def heal(self) -> None:
        """Work again."""
        self.delay = 0.0
        self.commits_to_lose = 0
        self.to_swallow = None
        self.flowing.set()

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self.heal()
        self.cut()

    def takes(self) -> bool:
        """Whether the reply of the COMMIT that has just been seen is to be lost."""
        with self._lock:
            if self.commits_to_lose:
                self.commits_to_lose -= 1
                self.lost += 1
                return True
            return False

    def swallows(self, sent: bytes) -> bool:
        """Whether the COMMIT of the transaction that has sent this is not to arrive."""
        with self._lock:
            if self.to_swallow is None or self.to_swallow not in sent:
                return False
            self.to_swallow = None
            return True

    def _all(self) -> list[Link]:
        with self._lock:
            links, self.links = list(self.links), set()
            return links

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server, 5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                with self._lock:
                    self.links.add(Link(self, client, server))


class Link:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._deaf = False
        self._loses_reply = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._pass_on, args=(client, server, "up"), daemon=True).start()
        threading.Thread(target=self._pass_on, args=(server, client, "down"), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, way: Way) -> None:
        sent = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if way == "up" and self._proxy.to_swallow is not None:
                    sent += data
                if way == "up" and COMMIT in data and self._proxy.takes():
                    self._loses_reply = True
                elif way == "up" and COMMIT in data:
                    self._deaf = self._deaf or self._proxy.swallows(sent)
                    sent = b""
                elif way == "down" and self._loses_reply:
                    break  # committed, and nobody is told
                if self._proxy.delay:
                    time.sleep(self._proxy.delay)
                self._proxy.flowing.wait()
                if self._deaf:
                    continue
                target.sendall(data)
        if not self._deaf:
            self.close()

    def deafen(self) -> bool:
        self._deaf = True
        return True

    def half_close(self) -> bool:
        with contextlib.suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
        return True

    def close(self) -> bool:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        return True
