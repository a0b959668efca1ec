"""How many jobs may still be started."""

from __future__ import annotations

from collections.abc import Mapping

from jobify_django.runtime import Runtime


class Budget:
    """How many more jobs the pools of a process may start together; ``None`` is without end."""

    def __init__(self, jobs: int | None, runtime: Runtime) -> None:
        self._left = jobs
        self._runtime = runtime
        self._lock = runtime.lock()

    @property
    def spent(self) -> bool:
        """Whether no further job may be started."""
        return self._left is not None and self._left <= 0

    def limit(self, wants: Mapping[str, int]) -> Mapping[str, int]:
        """Return as much of ``wants`` as is left."""
        return wants if self._left is None else at_most(wants, self._left, self._runtime)

    def spend(self, jobs: int) -> None:
        """Note started jobs."""
        if self._left is not None:
            with self._lock:
                self._left -= jobs


def at_most(wants: Mapping[str, int], left: int, runtime: Runtime) -> Mapping[str, int]:
    """Return as much of ``wants`` as is left."""
    limited = {}
    # In any order, or an empty queue would keep what is left from the next one for ever.
    for name, want in runtime.sample(list(wants.items()), len(wants)):
        if left > 0:
            limited[name] = min(want, left)
            left -= limited[name]
    return limited
