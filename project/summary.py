"""What a run of the demo did, from the rows of its jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from jobify_django import JobStatus, queue
from jobify_django.models import Job
from project.shop.picture import percentile
from project.traffic import Seen


def summary(began: float, seen: Seen) -> Iterator[str]:
    """Yield the lines of the summary.

    Args:
        began: when the run began, in seconds since the epoch; jobs pushed since then count.
        seen: what the traffic saw.
    """
    jobs = Job.objects.filter(queue="default", pushed_at__gte=began)
    by_status = Counter(jobs.values_list("status", flat=True))
    done, failed = by_status[JobStatus.SUCCESSFUL], by_status[JobStatus.FAILED]
    left = by_status.total() - done - failed - by_status[JobStatus.CANCELLED]
    yield f"pushed    {by_status.total():6,} jobs, by {seen.accepted:,} checkouts and by page views"
    yield f"done      {done:6,} successful, {failed} failed (declined cards)" + _left(left)
    yield f"refused   {seen.refused:6,} checkouts (503), {seen.skipped_visits:,} page views skipped"
    yield f"deepest   {seen.deepest:6,} waiting, of {seen.bound} allowed"
    yield f"slowest   {seen.slowest:6.2f} s for one checkout"
    yield f"{'wait':<16}{'jobs':>8}{'p50':>12}{'p95':>12}"
    for band, priority in sorted(queue("default").settings.priorities.items(), key=lambda band: -band[1]):
        times = jobs.filter(priority=priority).values_list("started_at", "eligible_at")
        waits = [max(0.0, started - eligible) for started, eligible in times if started is not None]
        p50, p95 = _milliseconds(percentile(waits, 0.50)), _milliseconds(percentile(waits, 0.95))
        yield f"  {band:<14}{len(waits):>8,}{p50:>12}{p95:>12}"


def _left(left: int) -> str:
    return f", {left} left for the next run" if left else ""


def _milliseconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{1000 * seconds:,.0f} ms"
