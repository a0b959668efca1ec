"""Plant bugs, one at a time, in a copy of the package, and see whether the tests find them.

``python -m tests.simulation.mutants`` plants them all; names as arguments choose some. The copy lives in a
temporary directory: the working tree is never touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.simulation.planting import Mutant, misfits, plant

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 300
"""Seconds one hunt may take; then the next has its turn."""


MUTANTS = (
    # What becomes of a job
    Mutant(
        "a release is charged",
        "outcome.Outcome.charged",
        'self.happened == "crashed"',
        'self.happened in ("crashed", "released")',
    ),
    Mutant(
        "a crash is not counted",
        "outcome.next_state",
        "crashes += outcome.charged",
        "crashes += 0",
    ),
    Mutant(
        "a job that kills its pools is run for ever",
        "outcome.next_state",
        "outcome.charged and crashes >= CRASH_LIMIT",
        "False",
    ),
    Mutant(
        "a job that somebody cancelled runs again after a release",
        "outcome.next_state",
        "if cancel_requested: return NextState(CANCELLED, None, crashes)",
        "pass",
    ),
    Mutant(
        "a retried job keeps its crashes",
        "outcome.next_state",
        'if outcome.happened == "retried": return NextState(WAITING, None, 0)',
        "pass",
    ),
    Mutant(
        "a job released until later waits at once",
        "outcome.next_state",
        "outcome.until > now",
        "False",
    ),
    # Storing outcomes
    Mutant(
        "an outcome of an old attempt is stored (memory)",
        "stores.memory.store.MemoryStore._running",
        "row.attempt == attempt",
        "True",
    ),
    Mutant(
        "an outcome of an old attempt is stored (database)",
        "stores.database.sqlite.END",
        "(id, attempt) IN (VALUES %s)",
        "id IN (SELECT column1 FROM (VALUES %s))",
        sql=True,
    ),
    Mutant(
        "a pool hands back what another one holds (memory)",
        "stores.memory.store.MemoryStore._settle_all",
        "outcome.pool != row.pool",
        "False",
    ),
    Mutant(
        "a pool hands back what another one holds (database)",
        "stores.database.settle._holds",
        'outcome.pool in ("", job.pool)',
        "True",
    ),
    Mutant(
        "a release of an old attempt is stored (database)",
        "stores.database.settle._holds",
        "job.attempt != outcome.attempt",
        "False",
    ),
    Mutant(
        "of two outcomes of one job both count as stored (database)",
        "stores.database.settle.Settling._settle",
        "(one.id, one.attempt) not in stored",
        "one.id not in {id for id, _ in stored}",
    ),
    Mutant(
        "a release wakes nobody (database)",
        "stores.database.settle.Settling._notify_returned",
        "self._notify_work(...)",
        "pass",
    ),
    Mutant(
        "an end wakes nobody who waits for it (memory)",
        "stores.memory.store.MemoryStore._tell_ends",
        "row.wake_all()",
        "pass",
    ),
    # Leases
    Mutant(
        "a lease is renewed by whoever held the job before (database)",
        "stores.database.sqlite.RENEW",
        "(id, attempt) IN (VALUES %s) AND pool = ?",
        "id IN (SELECT column1 FROM (VALUES %s)) AND ? > ''",
        sql=True,
    ),
    Mutant(
        "leases are renewed too late",
        "pool.upkeep.Upkeep.__post_init__",
        "Chore(self._renew, lease / 3, ..., first=lease / 3)",
        "Chore(self._renew, lease * 2, ..., first=lease * 2)",
    ),
    Mutant(
        "jobs are taken from pools that live (memory)",
        "stores.memory.store.MemoryStore.rescue",
        "(row.lease_until or 0) < now",
        "(row.lease_until or 0) < now + 1000",
    ),
    Mutant(
        "a pool that was itself away takes jobs at once",
        "pool.reachability.Reachability.reached",
        "abs(now - self._reached_at) > self._gap",
        "False",
    ),
    Mutant(
        "a job that has ended is reported lost",
        "pool.upkeep.Upkeep._lose",
        "not running.slots.holds(running)",
        "False",
    ),
    Mutant(
        "a job that a stopping pool hands back is reported lost",
        "pool.upkeep.Upkeep._renew",
        "if self._stop.is_set(): return",
        "pass",
    ),
    # The bound
    Mutant(
        "the bound is off by one (memory)",
        "stores.memory.store.MemoryStore.add",
        "line.waiting + len(specs) > maxsize",
        "line.waiting + len(specs) > maxsize + 1",
    ),
    Mutant(
        "the bound is off by one (database)",
        "stores.database.add.Adding._add",
        "room.depth + room.reserved + fitting > maxsize",
        "room.depth + room.reserved + fitting > maxsize + 1",
    ),
    Mutant(
        "due jobs do not count for the bound (database)",
        "stores.database.sqlite.SQLiteStore._room",
        "row.due is not None and row.due <= now",
        "False",
    ),
    Mutant(
        "a cancelled job still counts (database)",
        "stores.database.cancel.Cancelling._cancel",
        "self._note_waiting(...)",
        "pass",
    ),
    Mutant(
        "many pushed at once count twice (database)",
        "stores.database.sqlite.SQLiteStore._insert",
        "sum(...)",
        "2 * sum(...)",
    ),
    # Claiming
    Mutant(
        "a cancelled job starts all the same (memory)",
        "stores.memory.line.Line.take",
        "row.status is WAITING",
        "True",
    ),
    Mutant(
        "a delayed job starts early (memory)",
        "stores.memory.line.Line.promote",
        "self.delayed[0][0] <= now",
        "self.delayed[0][0] <= now + 0.5",
    ),
    Mutant(
        "more is claimed than workers are idle",
        "pool.slots.Slots.idle",
        "self.size",
        "self.size + 1",
    ),
    Mutant(
        "more jobs run than all pools together may (memory)",
        "stores.memory.line.Line.may_start",
        "lane.max_running - leased",
        "lane.max_running",
    ),
    Mutant(
        "more jobs run than all pools together may (database)",
        "stores.database.claim.Claiming._may_start",
        "lane.max_running - running",
        "lane.max_running",
    ),
    Mutant(
        "a paused queue lets pools turn in a circle (database)",
        "stores.database.claim.claimed_of",
        "peek.due > now",
        "True",
    ),
    Mutant(
        "an outcome is dropped where the store fails",
        "pool.turn.Turn.run",
        "self.completer.put_back(outcomes)",
        "pass",
    ),
    Mutant(
        "jobs of a lost reply are not handed back",
        "pool.turn.Turn._reconcile",
        "self.store.reconcile(...)",
        "pass",
    ),
    Mutant(
        "a stopping pool keeps its jobs",
        "pool.pool.Pool._close",
        "not self.completer.empty",
        "self.completer.empty",
    ),
    Mutant(
        "a wake-up is lost while a turn goes on",
        "pool.claim_loop.ThreadClaimLoop._turn_until_stopped",
        "pause = self.turn()",
        "pause = self.turn(); self._alarm.clear(); self._urgent.clear()",
    ),
    Mutant(
        "an outcome rings nobody once another has rung",
        "pool.claim_loop.ThreadClaimLoop.wake_for_outcome",
        "self._urgent.set()",
        "pass",
    ),
    Mutant(
        "outcomes of a turn's time are stored apart from those of the jobs that it started",
        "pool.claim_loop.ThreadClaimLoop._gather_again",
        "not self._woken and self.gathering()",
        "False",
    ),
    Mutant(
        "a thread that takes a job wakes none for the next one",
        "pool.threads.Threads._next",
        "self._wake_one_for_the_line()",
        "pass",
    ),
    Mutant(
        "notifications are lost where what was claimed cannot be started (database)",
        "stores.database.transaction.Transactions.notifying_last",
        "self._after_commit(...)",
        "pass",
    ),
    # Quarantine
    Mutant(
        "jobs in quarantine run beside others (memory)",
        "stores.memory.line.Line.take",
        "row.crashes if quarantined is None else row is not quarantined",
        "quarantined is not None and row is not quarantined",
    ),
    Mutant(
        "jobs in quarantine run beside others (database)",
        "stores.database.claim.Selection.condition",
        "'crashes = 0'",
        "'crashes >= 0'",
    ),
    Mutant(
        "a job in quarantine starts beside what has just started",
        "pool.quarantine.QuarantineRule.choice",
        "now - youngest.began < QUARANTINE",
        "False",
    ),
    Mutant(
        "others start beside a job in quarantine",
        "pool.turn.Turn._demand",
        "self.quarantine.seconds_alone",
        "False",
    ),
    Mutant(
        "a job in quarantine waits for as long as others start",
        "pool.quarantine.QuarantineRule.choice",
        'if self._deferred_lately(now) and now - self._deferred_since >= QUARANTINE: return "alone"',
        "pass",
    ),
    # Tuning
    Mutant(
        "a tuned size is not applied",
        "pool.workers.Workers.apply",
        "slots.size = self.fixed or state.workers or slots.settings.workers",
        "pass",
    ),
    Mutant(
        "a tuned version is not remembered",
        "pool.workers.Workers.apply",
        "slots.version = slots.version if state.reordering else state.version",
        "pass",
    ),
    Mutant(
        "of two who tune what they saw both win (database)",
        "stores.database.tune.Tuning._tune",
        "before.must_be(expected)",
        "pass",
    ),
    Mutant(
        "a changed order is in force before the last job stands where it wants it (database)",
        "stores.database.tune.Tuning._reorder",
        "not found and not late",
        "not late",
    ),
    Mutant(
        "a resumed queue wakes nobody (memory)",
        "stores.memory.store.MemoryStore.tune",
        'self.notifier.publish("work", queue.name)',
        "pass",
    ),
    # Retrying and pruning
    Mutant(
        "a retried job keeps its old place (database)",
        "stores.database.settle.Settling._reset",
        "KEYS[self._order_of(db, queue)]",
        "'order_key'",
    ),
    Mutant(
        "a retried job of a tuned queue stands where the settings put it (memory)",
        "stores.memory.store.MemoryStore._order",
        "self._line(queue).state.order",
        "None",
    ),
    Mutant(
        "jobs are pruned too early (database)",
        "stores.database.prune._ended",
        "ended_at < ?",
        "ended_at <> ?",
        sql=True,
    ),
    # Pushing and waiting
    Mutant(
        "a cancelled push leaves its job",
        "push.push.PendingPush._admit",
        "yield from admission.cancel_added()",
        "pass",
    ),
    Mutant(
        "who leaves the line wakes nobody",
        "waiting.waitlist.WaitList.leave",
        "successor.waker.wake()",
        "pass",
    ),
    Mutant(
        "room wakes nobody who waits for it",
        "push.waits.PushWaits._on_notification",
        "self.wake_first()",
        "pass",
    ),
)

BLIND_SPOTS = (
    "tests/test_woken.py",
    "tests/test_claim_loop.py",
    "tests/test_threads.py::test_jobs_that_block_all_run_at_once_also_on_threads_that_slept",
    "tests/test_notifications.py::test_notifications_are_sent_although_what_was_claimed_cannot_be_started",
    "tests/test_retried_order.py",
    "tests/test_deferred_push.py",
    "tests/test_pool.py::test_a_job_that_a_stopping_pool_hands_back_is_not_reported_lost",
    "tests/test_reachability.py::test_a_pool_that_stood_still_or_whose_clock_was_set_was_away_too",
    "tests/test_reorder.py::test_a_changed_order_is_made_in_parts",
    "tests/test_quarantine.py::test_a_job_in_quarantine_does_not_wait_for_ever_for_jobs_that_keep_starting",
)
"""What sees bugs that the others cannot: in the simulator a poll stands in for every lost wake-up, and its
seeds do not meet everything."""

PYTEST = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
HUNTS = (
    ("simulator", ["-m", "tests.simulation", "--seeds", "0:150"]),
    ("tests of its blind spots", [*PYTEST, *BLIND_SPOTS]),
    ("conformance", [*PYTEST, "tests/test_conformance.py"]),
    ("state machine", [*PYTEST, "tests/test_state_machine.py"]),
    ("crowded simulator", ["-m", "tests.simulation", "--seeds", "0:200", "--profile", "crowded"]),
)
"""The cheaper ones, which find more in a second, come first."""


class Found(NamedTuple):
    """By what a mutant was found, if by anything, in how many seconds, and what it said."""

    mutant: Mutant
    by: str
    seconds: float
    said: str


def main(names: list[str]) -> int:
    """Plant the mutants whose names hold one of ``names``, or all; returns the exit code."""
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    if why := misfits(chosen, ROOT):
        print("\n".join(why))
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jobify-mutants-") as scratch:
        sound = hunt(None, Path(scratch))
        if sound.by:
            print(f"without any mutant the {sound.by} finds: {sound.said}")
            return 2
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as lanes:
            found = list(lanes.map(lambda mutant: report(hunt(mutant, Path(scratch))), chosen))
    escaped = [one.mutant.name for one in found if not one.by]
    print(
        f"{len(found) - len(escaped)} of {len(found)} found in {time.monotonic() - began:.0f} s"
        + (f"; not found: {'; '.join(escaped)}" if escaped else "")
    )
    return int(bool(escaped))


def hunt(mutant: Mutant | None, scratch: Path) -> Found:
    """Plant a mutant in a copy of the house, and let one hunt after the other look for it."""
    house = Path(tempfile.mkdtemp(dir=scratch))
    for part in ("jobify_django", "tests"):
        shutil.copytree(ROOT / part, house / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", house)
    if mutant is not None:
        plant(mutant, house)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "MUTANTS": "1"}
    environment.pop("JOBIFY_TEST_DIRECTORY", None)
    began = time.monotonic()
    try:
        for by, command in HUNTS:
            if mutant is None and "simulator" in by:
                command = ["-m", "tests.simulation", "--seeds", "0:20"]
            said = _broken(command, house, environment)
            if said:
                return Found(mutant or MUTANTS[0], by, time.monotonic() - began, said)
        return Found(mutant or MUTANTS[0], "", time.monotonic() - began, "")
    finally:
        shutil.rmtree(house, ignore_errors=True)


def report(found: Found) -> Found:
    """Print one line."""
    by = f"found by the {found.by}" if found.by else "NOT FOUND"
    print(f"{found.seconds:6.1f} s  {found.mutant.name}: {by}  {found.said[:110]}", flush=True)
    return found


def _broken(command: list[str], house: Path, environment: dict[str, str]) -> str:
    """Return what a hunt found, or nothing."""
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=house,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return ""  # no verdict: the machine may just be busy
    if done.returncode == 0:
        return ""
    lines = [
        line for line in done.stdout.splitlines() if "breaks" in line or line.startswith(("E  ", "FAILED"))
    ]
    return (lines or done.stdout.splitlines() or done.stderr.splitlines() or ["it failed"])[-1].strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
