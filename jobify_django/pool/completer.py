"""Outcomes on their way to the store: collected as jobs end, stored in one guarded batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from jobify_django.outcome import Outcome
from jobify_django.pool.slots import RunningJob


class Completer:
    """What a pool holds: every job it has claimed and whose end is not stored yet.

    An outcome that could not be stored stays, and is offered again; the store refuses it if the job has
    gone to somebody else meanwhile.
    """

    # No lock: each step is one operation on a dict or a deque, which no other thread can split.

    def __init__(self) -> None:
        self._held: dict[str, RunningJob] = {}
        self._lost: dict[tuple[str, int], RunningJob] = {}
        self._ended: deque[Outcome] = deque()

    def hold(self, running: RunningJob) -> None:
        """Note a claimed job. If an earlier attempt of it, which was lost, still runs here, it goes on."""
        id = running.claim.id
        if (earlier := self._held.get(id)) is not None:
            self._lost[id, earlier.claim.attempt] = earlier
        self._held[id] = running

    def held(self) -> dict[str, int]:
        """Return the jobs held, id to attempt number."""
        return {running.claim.id: running.claim.attempt for running in self.jobs()}

    def jobs(self) -> Sequence[RunningJob]:
        """Return the jobs held."""
        return list(self._held.values())

    def running(self, id: str) -> RunningJob | None:
        """Return a held job."""
        return self._held.get(id)

    def add(self, outcome: Outcome) -> None:
        """Note how a job ended."""
        self._ended.append(outcome)

    def take(self) -> list[Outcome]:
        """Return the outcomes to store; those that cannot be stored must be put back."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def put_back(self, outcomes: Sequence[Outcome]) -> None:
        """Keep outcomes for the next try."""
        self._ended.extendleft(reversed(outcomes))

    def forget(self, id: str, attempt: int) -> RunningJob | None:
        """Forget a job whose end is stored, or that this pool does not hold any more."""
        running = self._held.get(id)
        if running is None or running.claim.attempt != attempt:
            return self._lost.pop((id, attempt), None)
        return self._held.pop(id, None)

    @property
    def empty(self) -> bool:
        """Whether nothing is held."""
        return not self._held
