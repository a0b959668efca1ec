"""Customers: they look at pages and check out, through the site's own views, and now and then all at once."""

from __future__ import annotations

import http.client
import json
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Self
from urllib.parse import urlencode

from jobify_django import queue
from project.server import HOST

CUSTOMERS = 300
"""How many can be in the shop at once; each waits for its answer."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How many come in a second, and what it is called when it is news."""

    checkouts: float
    visits: float
    name: str = ""


CALM = Pace(3, 8)
RUSH = Pace(20, 40, "a rush: 20 checkouts a second")
STAMPEDE = Pace(120, 20, "a stampede: 120 checkouts a second")

FIRST_RUSH = 1.0
EVERY = 10.0
LASTING = 3.0
TICK = 0.05


def pace(elapsed: float) -> Pace:
    """Return how busy the shop is, so many seconds after it opened: calm, but for a rush or a stampede."""
    number, into = divmod(elapsed - FIRST_RUSH, EVERY)
    if number < 0 or into >= LASTING:
        return CALM
    return STAMPEDE if number % 2 else RUSH


@dataclass
class Seen:
    """What the demo saw from outside."""

    answers: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0
    accepted: int = 0
    refused: int = 0
    skipped_visits: int = 0
    deepest: int = 0
    bound: int = 0


class Traffic:
    """The customers of one site, and an eye on its queue, for as long as the ``with`` block lasts."""

    def __init__(self, port: int) -> None:
        self.seen = Seen()
        self._port = port
        self._token = ""
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._inside = 0
        self._threads: list[threading.Thread] = []
        self._customers = ThreadPoolExecutor(CUSTOMERS, thread_name_prefix="customer")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._customers.shutdown()

    @property
    def inside(self) -> bool:
        """Whether any customer is still in the shop."""
        return self._inside > 0

    def start(self) -> None:
        """Open the shop."""
        self._token = self._fetch_token()
        self._threads = [threading.Thread(target=loop) for loop in (self._send, self._watch)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let nobody in any more. Those who are in finish, or are cut off when the server ends."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._customers.shutdown(wait=False, cancel_futures=True)

    def read_totals(self) -> None:
        """Note what the site counted, customers sent from the page included."""
        connection = http.client.HTTPConnection(HOST, self._port, timeout=30)
        try:
            connection.request("GET", "/state/")
            producers = json.load(connection.getresponse())["producers"]
        finally:
            connection.close()
        self.seen.accepted = producers["accepted"]
        self.seen.refused = producers["refused"]
        self.seen.skipped_visits = producers["skipped_visits"]

    def _send(self) -> None:
        opened = time.monotonic()
        before = CALM
        due: dict[Callable[[], int], float] = {self._check_out: 0.0, self._look: 0.0}
        while not self._over.wait(TICK):
            now = pace(time.monotonic() - opened)
            if now is not before and now.name:
                print(f"{time.monotonic() - opened:5.0f} s  {now.name}", flush=True)
            before = now
            for act, rate in ((self._check_out, now.checkouts), (self._look, now.visits)):
                due[act] += rate * TICK * random.uniform(0.5, 1.5)
                while due[act] >= 1:
                    due[act] -= 1
                    self._customers.submit(self._come, act)

    def _come(self, act: Callable[[], int]) -> None:
        began = time.monotonic()
        with self._lock:
            self._inside += 1
        status = act()
        with self._lock:
            self._inside -= 1
            self.seen.answers[status] += 1
            self.seen.slowest = max(self.seen.slowest, time.monotonic() - began)

    def _check_out(self) -> int:
        return self._post("/checkout/", order=secrets.token_hex(4).upper())

    def _look(self) -> int:
        return self._post("/visit/", page=random.choice(["/", "/shoes/", "/hats/", "/basket/"]))

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            stats = queue("default").stats()
            if stats.waiting >= self.seen.deepest:
                self.seen.deepest, self.seen.bound = stats.waiting, stats.maxsize

    def _fetch_token(self) -> str:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=30)
        try:
            connection.request("GET", "/")
            cookie = SimpleCookie(connection.getresponse().headers.get("Set-Cookie", ""))
            return cookie["csrftoken"].value
        finally:
            connection.close()

    def _post(self, path: str, **values: str) -> int:
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": f"csrftoken={self._token}",
            "X-CSRFToken": self._token,
        }
        connection = http.client.HTTPConnection(HOST, self._port, timeout=60)
        try:
            connection.request("POST", path, urlencode(values), headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0  # the server is gone; whoever watches it will say so
        finally:
            connection.close()
