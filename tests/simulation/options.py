"""What is drawn from a seed before the story begins."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

STORES = ("memory", "memory on threads", "database")
"""The memory store on the event loop, the same as if it blocked, and the database store."""

PROFILES = ("calm", "crowded", "flaky", "crashing", "freezing", "outages", "everything")
QUEUES = ("default", "mail")


@dataclass
class Options:
    """A story's cast and its bad luck. Times are in seconds; luck is a probability.

    Attributes:
        pools, sites: processes that run jobs; that push them.
        pushes: about how many each of a site's four producers pushes.
        seconds: how long things go wrong; then the story is played to its end.
        watched: whether processes notice each other's writes without polling.
        rolling: whether the pools there at first do not know one of the tasks yet.
        latency: how long a call takes, where it takes time.
        preempt: that a thread is interrupted where it might be.
        crashes, freezes: that a process crashes or freezes at one turn.
        failures, lost, delays: that a call fails before its work, after it, or takes long.
        outages: when nobody reaches the store.
    """

    store: str
    profile: str
    lease: float
    pools: int
    sites: int
    pushes: int
    seconds: float
    watched: bool
    rolling: bool
    latency: float
    preempt: float
    jobify: dict[str, Any]
    crashes: float = 0.0
    freezes: float = 0.0
    failures: float = 0.0
    lost: float = 0.0
    delays: float = 0.0
    outages: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: random.Random, store: str | None, profile: str | None) -> Options:
        """Draw a story; a store or a profile that is given is kept."""
        drawn_store, drawn_profile = rng.choices(STORES, (2, 3, 3))[0], rng.choice(PROFILES)
        options = cls(
            store=store or drawn_store,
            profile=profile or drawn_profile,
            lease=rng.choice((2, 3, 5)),
            pools=rng.randint(1, 3),
            sites=rng.randint(1, 2),
            pushes=rng.randint(3, 8),
            seconds=rng.uniform(6, 14),
            watched=rng.random() < 0.6,
            rolling=rng.random() < 0.25,
            latency=rng.choice((0.001, 0.01, 0.04)),
            preempt=rng.choice((0.0, 0.05, 0.3)),
            jobify={},
        )
        options.jobify = {
            "STORE": "database" if options.store == "database" else "memory",
            "LEASE": options.lease,
            "WORKERS": rng.randint(1, 4),
            "MAXSIZE": rng.choice((1, 2, 3, 6)),
            "ORDER": rng.choice(("priority", "priority", "fifo", "lifo")),
            "PUSH_TIMEOUT": rng.choice((0, 0.3, 1, 3)),
            "RETENTION": rng.choice((2, 1000)),
            "QUEUES": {
                "default": {},
                "mail": {
                    "WORKERS": rng.randint(1, 2),
                    "ORDER": "fifo",
                    "MAX_RUNNING": rng.choice((None, None, 1, 2)),
                },
            },
        }
        if options.profile == "crowded":
            options.watched, options.latency, options.pushes = True, 0.04, 12
            options.jobify |= {"MAXSIZE": rng.choice((1, 2)), "PUSH_TIMEOUT": rng.choice((1, 3))}
        options._draw_luck(rng)
        return options

    def _draw_luck(self, rng: random.Random) -> None:
        every = self.profile == "everything"
        if every or self.profile == "crashing":
            self.crashes = rng.choice((1, 3)) / 6_000
        if every or self.profile == "freezing":
            self.freezes = rng.choice((2, 5)) / 6_000
        if every or self.profile == "flaky":
            self.failures, self.lost = rng.choice(((0.02, 0.02), (0.0, 0.08), (0.1, 0.05)))
            self.delays = rng.choice((0.0, 0.02))
        if every or self.profile == "outages":
            starts = [rng.uniform(1, self.seconds) for _ in range(rng.randint(1, 2))]
            self.outages = [(start, start + rng.choice((0.5, 2, 6))) for start in starts]

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong: then much more must hold."""
        return self.profile in ("calm", "crowded")
