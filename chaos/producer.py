"""A process that pushes, and takes down what it was told: ``python -m chaos.producer '{"name": ...}'``."""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import asdict, dataclass

from chaos import process
from chaos.ledger import Ledger


@dataclass(frozen=True)
class Order:
    """What a producer is to do.

    Attributes:
        name: the beginning of the keys it gives its jobs; no two producers share one.
        count: how many jobs to push.
        seed: of its choices.
        shortest, longest: seconds that jobs take.
        long: the share of jobs that take ``long_seconds``.
        rate: pushes a second at most; 0 knows no limit.
        most: jobs in one ``push_many`` at most; 1 pushes one by one.
        tasks: the names of the tasks to choose from.
        delay: seconds until a job is eligible.
        patience: seconds a push waits for room.
    """

    name: str
    count: int
    seed: int = 0
    shortest: float = 0.002
    longest: float = 0.04
    long: float = 0.0
    long_seconds: float = 1.0
    rate: float = 0.0
    most: int = 1
    tasks: tuple[str, ...] = ("work", "awork")
    patience: float = 60.0
    delay: float = 0.0

    def text(self) -> str:
        """Return what ``main`` reads."""
        return json.dumps(asdict(self))


def main() -> None:
    """Push what the first argument orders; go on whatever fails."""
    import django

    django.setup()
    order = Order(**json.loads(sys.argv[1]))
    _Producer(order).run()


class _Producer:
    def __init__(self, order: Order) -> None:
        from chaos.app import tasks

        self.order = order
        self.chance = random.Random(order.seed)
        self.ledger = Ledger("pushes")
        self.tasks = [
            getattr(tasks, name).using(timeout=order.patience, delay=order.delay) for name in order.tasks
        ]

    def run(self) -> None:
        begin = time.monotonic()
        done = tried = 0
        while done < self.order.count:
            many = min(self.chance.randint(1, self.order.most), self.order.count - done)
            if self._push([f"{self.order.name}.{tried + number}" for number in range(many)]):
                done += many
            tried += many
            if self.order.rate:
                process.wait(begin + done / self.order.rate - time.monotonic())

    def _push(self, keys: list[str]) -> bool:
        """Return whether the producer knows what became of all of them."""
        from jobify_django import JobifyError, QueueFull

        calls = [(key, self._seconds()) for key in keys]
        task = self.chance.choice(self.tasks)
        for key in keys:
            self.ledger.write("T", key)
        began = time.monotonic()
        try:
            jobs = [task.push(*calls[0])] if len(calls) == 1 else task.push_many(calls)
        except QueueFull as full:
            jobs = full.pushed
            for key in keys[len(jobs) :]:
                self.ledger.write("R", key)
        except JobifyError as error:
            for key in keys:
                self.ledger.write("K", key, type(error).__name__)
            process.wait(0.05)  # the store is away: not again at once
            return False
        took = time.monotonic() - began
        for key, job in zip(keys, jobs, strict=False):
            self.ledger.write("A", key, job.id, f"{took:.6f}")
        return True

    def _seconds(self) -> float:
        order = self.order
        if self.chance.random() < order.long:
            return order.long_seconds
        return round(self.chance.uniform(order.shortest, order.longest), 4)


if __name__ == "__main__":
    main()
