"""What a pool does while its store is away: it tries again, less and less often, and logs that."""

from __future__ import annotations

from jobify_django.exceptions import StoreError
from jobify_django.log import get_log, quoted
from jobify_django.repeated_failure import RepeatedFailure
from jobify_django.runtime import Runtime

logger = get_log("jobify.worker")

LONGEST_BACKOFF = 3.0
"""Seconds between tries at a store that is away, at most."""


class Backoff:
    """The pauses between tries at a store that is away.

    Args:
        store: its name.
        longest_pause: seconds that a pause may take at most, if that is less than ``LONGEST_BACKOFF``.
        runtime: the machine the pool runs on.
    """

    def __init__(self, store: str, longest_pause: float, runtime: Runtime) -> None:
        self._store = store
        self._longest_pause = longest_pause
        self._away = RepeatedFailure(runtime)
        self._uniform = runtime.uniform
        self.pause = 0.0
        """Seconds until the next try; 0 while the store is there."""

    def fail(self, error: Exception, held: int) -> float:
        """Note a try that failed, while so many jobs are held; return the seconds until the next."""
        if (report := self._away.fail(error)) is not None:
            unknown = report.new and not isinstance(error, StoreError)
            logger.error(
                "event=store-away store=%s error=%r jobs_held=%d tries=%d: trying again until it is back",
                quoted(self._store),
                str(error),
                held,
                report.times,
                exc_info=error if unknown else None,
            )
        self.pause = min(LONGEST_BACKOFF, self._longest_pause, (self.pause or 0.1) * 2)
        return self.pause * self._uniform(0.5, 1.0)

    def recovered(self) -> None:
        """Note that tries go through again."""
        self._away.recovered()
        logger.info("event=store-back store=%s", quoted(self._store))
        self.pause = 0.0
