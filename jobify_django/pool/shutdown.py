"""The end of a service, as both doors (``lifespan`` and ``runjobs``) bring it about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jobify_django.pool.service import Service
from jobify_django.runtime import MACHINE, Runtime


class Shutdown:
    """Ends a service: first its running jobs have a grace to end; asked again, it hands them back now.

    All but ``drain`` only set flags: a signal handler, or another thread, may call them at any point.

    Args:
        same_signal_within: a signal within so many seconds of the first counts as the first one come twice.
        service: what is to end, if there is one already.
        runtime: the machine it runs on.

    Attributes:
        service: what is to end, once there is one.
        begun: whether it was told to claim nothing more.
        releasing: whether it was told to hand its jobs back now.
    """

    def __init__(
        self, same_signal_within: float, service: Service | None = None, runtime: Runtime = MACHINE
    ) -> None:
        self._monotonic = runtime.monotonic
        self._same_signal_within = same_signal_within
        self._signalled_at: float | None = None
        self.service = service
        self.begun = False
        self.releasing = False

    def meaning(self) -> Literal["stop", "release"] | None:
        """Return what a signal that comes now asks for; ``None`` if it belongs to the first one."""
        now = self._monotonic()
        if self._signalled_at is None:
            self._signalled_at = now
            return "stop"
        return "release" if now - self._signalled_at > self._same_signal_within else None

    def stop(self) -> None:
        """Claim nothing more; ``drain`` does the rest."""
        self.begun = True
        if self.service is not None:
            self.service.stop_claiming()

    def release_now(self) -> None:
        """Hand back what runs now, instead of when the grace is over."""
        self.stop()
        self.releasing = True
        if self.service is not None:
            self.service.release_now()

    async def drain(self, grace: float | None) -> Sequence[str]:
        """Wait for running jobs, ``grace`` seconds at most, and return the ids of those handed back."""
        assert self.service is not None
        if self.releasing:
            self.service.release_now()  # a pool may have been replaced since
        return await self.service.drain(grace)
