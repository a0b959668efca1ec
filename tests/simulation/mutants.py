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

ROOT = Path(__file__).parent.parent.parent
MAY_ESCAPE = 1
PATIENCE = 300
"""Seconds one hunt may take; then the next has its turn."""


class Mutant(NamedTuple):
    """A bug: what it is, the file it is planted in, and the exact text it replaces there."""

    name: str
    file: str
    old: str
    new: str


RULE = "outcome.py"
MEMORY = "stores/memory/store.py"
LINE = "stores/memory/line.py"
ADD = "stores/database/add.py"
CLAIM = "stores/database/claim.py"
SETTLE = "stores/database/settle.py"
SQLITE = "stores/database/sqlite.py"

MUTANTS = (
    Mutant(
        "an outcome of an old attempt is stored (memory)",
        MEMORY,
        "row.status is RUNNING and row.attempt == attempt",
        "row.status is RUNNING",
    ),
    Mutant(
        "an outcome of an old attempt is stored (database)",
        SQLITE,
        "WHERE (id, attempt) IN (VALUES %s) AND status = 'running'",
        "WHERE id IN (SELECT column1 FROM (VALUES %s)) AND status = 'running'",
    ),
    Mutant(
        "a lease is renewed by whoever held the job before (database)",
        SQLITE,
        "WHERE (id, attempt) IN (VALUES %s) AND pool = ? AND status = 'running'",
        "WHERE id IN (SELECT column1 FROM (VALUES %s)) AND ? > '' AND status = 'running'",
    ),
    Mutant(
        "the bound is off by one (memory)",
        MEMORY,
        "if line.waiting + len(specs) > maxsize:",
        "if line.waiting + len(specs) > maxsize + 1:",
    ),
    Mutant(
        "the bound is off by one (database)",
        ADD,
        "if room.depth + room.reserved + fitting > maxsize:",
        "if room.depth + room.reserved + fitting > maxsize + 1:",
    ),
    Mutant(
        "due jobs do not count for the bound (database)",
        SQLITE,
        "return Room(maxsize, order or None, waiting + due, count(sequence + 1))",
        "return Room(maxsize, order or None, waiting, count(sequence + 1))",
    ),
    Mutant(
        "a release is charged",
        RULE,
        'return self.happened == "crashed"',
        'return self.happened in ("crashed", "released")',
    ),
    Mutant(
        "a job released until later waits at once",
        RULE,
        "outcome.until is not None and outcome.until > now",
        "False",
    ),
    Mutant(
        "a pool hands back what another one holds (memory)",
        MEMORY,
        "outcome.pool and outcome.pool != row.pool",
        "False",
    ),
    Mutant(
        "a pool hands back what another one holds (database)",
        SETTLE,
        'outcome.pool in ("", job.pool)',
        "True",
    ),
    Mutant(
        "a release of an old attempt is stored (database)",
        SETTLE,
        "if job is None or job.attempt != outcome.attempt:",
        "if job is None:",
    ),
    Mutant(
        "a release wakes nobody (database)",
        SETTLE,
        "self._tell_work(one.job.queue for one in back)",
        "pass",
    ),
    Mutant(
        "a resumed queue wakes nobody (memory)",
        MEMORY,
        'self.notifier.publish("work", queue.name)\n'
        '        self.notifier.publish("room", queue.name)\n        return state',
        'self.notifier.publish("room", queue.name)\n        return state',
    ),
    Mutant(
        "jobs are taken from pools that live (memory)",
        MEMORY,
        "(row.lease_until or 0) < now)",
        "(row.lease_until or 0) < now + 1000)",
    ),
    Mutant(
        "a crash is not counted",
        RULE,
        "crashes += outcome.charged",
        "crashes += 0",
    ),
    Mutant(
        "jobs in quarantine run beside others (memory)",
        LINE,
        "(row.crashes if quarantined is None else row is not quarantined)",
        "(quarantined is not None and row is not quarantined)",
    ),
    Mutant(
        "jobs in quarantine run beside others (database)",
        CLAIM,
        "'crashes = 0'",
        "'crashes >= 0'",
    ),
    Mutant(
        "a job in quarantine starts beside what has just started",
        "pool/quarantine.py",
        'return "wait" if any(job and now - job.began < QUARANTINE for job in youngest) else "start"',
        'return "start"',
    ),
    Mutant(
        "others start beside a job in quarantine",
        "pool/turn.py",
        "if phase > Phase.CLAIMING or self.quarantine.left else",
        "if phase > Phase.CLAIMING else",
    ),
    Mutant(
        "leases are renewed too late",
        "pool/upkeep.py",
        "Chore(self._renew, lease / 3, first=lease / 3)",
        "Chore(self._renew, lease * 2, first=lease * 2)",
    ),
    Mutant(
        "an outcome is dropped where the store fails",
        "pool/turn.py",
        "self.completer.put_back(outcomes)",
        "pass",
    ),
    Mutant(
        "jobs of a lost reply are not handed back",
        "pool/turn.py",
        "self.store.reconcile(self.pool, self.completer.held())",
        "pass",
    ),
    Mutant(
        "more is claimed than workers are idle",
        "pool/slots.py",
        "return max(0, self.size - len(self._running))",
        "return max(0, self.size + 1 - len(self._running))",
    ),
    Mutant(
        "a tuned size is not applied",
        "pool/workers.py",
        "slots.size = self.fixed or state.workers or slots.settings.workers",
        "pass",
    ),
    Mutant(
        "a tuned version is not remembered",
        "pool/workers.py",
        "slots.version = slots.version if state.reordering else state.version",
        "pass",
    ),
    Mutant(
        "a stopping pool keeps its jobs",
        "pool/pool.py",
        "if not self.completer.empty:\n                self._released",
        "if self.completer.empty:\n                self._released",
    ),
    Mutant(
        "a cancelled job starts all the same (memory)",
        LINE,
        "if row.status is WAITING and row.id not in running:",
        "if row.id not in running:",
    ),
    Mutant(
        "a delayed job starts early (memory)",
        LINE,
        "self.delayed[0][0] <= now",
        "self.delayed[0][0] <= now + 0.5",
    ),
    Mutant(
        "a cancelled job still counts (database)",
        "stores/database/cancel.py",
        "self._note(db, queue, -number)",
        "pass",
    ),
    Mutant(
        "many pushed at once count twice (database)",
        SQLITE,
        'waiting = sum(job.status == "waiting" for job in fresh)',
        'waiting = 2 * sum(job.status == "waiting" for job in fresh)',
    ),
    Mutant(
        "a retried job keeps its old place (database)",
        SETTLE,
        "eligible_at = ?, order_key = {key} WHERE id IN",
        "eligible_at = ?, order_key = order_key WHERE id IN",
    ),
    Mutant(
        "a cancelled push leaves its job",
        "push/push.py",
        "yield from admission.take_back()",
        "pass",
    ),
    Mutant(
        "who leaves the line wakes nobody",
        "waiting/waitlist.py",
        "heir.waker.wake()",
        "pass",
    ),
    Mutant(
        "a wake-up is lost while a turn goes on",
        "pool/claim_loop.py",
        """            self._alarm.clear()
            self._urgent.clear()
            if not self._stopping:
                pause = self.turn()
""",
        """            if not self._stopping:
                pause = self.turn()
            self._alarm.clear()
            self._urgent.clear()
""",
    ),
    Mutant(
        "of two outcomes of one job both count as stored (database)",
        SETTLE,
        "if (one.id, one.attempt) not in stored",
        "if one.id not in {id for id, _ in stored}",
    ),
    Mutant(
        "a job that has ended is reported lost",
        "pool/upkeep.py",
        "or not running.slots.holds(running)",
        "",
    ),
    Mutant(
        "a job that a stopping pool hands back is reported lost",
        "pool/upkeep.py",
        "            if self._stop.is_set():\n                return  # the pool",
        "            if self._stop.is_set():\n                pass  # the pool",
    ),
    Mutant(
        "more jobs run than all pools together may (memory)",
        LINE,
        "min(lane.want, lane.max_running - leased)",
        "min(lane.want, lane.max_running)",
    ),
    Mutant(
        "a paused queue lets pools turn in a circle (database)",
        CLAIM,
        "look.due - now for look in looks if look.due is not None and look.due > now",
        "max(0.0, look.due - now) for look in looks if look.due is not None",
    ),
    Mutant(
        "room wakes nobody who waits for it",
        "push/waits.py",
        "self.wake_first()",
        "pass",
    ),
    Mutant(
        "a retried job of a tuned queue stands where the settings put it (memory)",
        MEMORY,
        'self._line(queue).state.order or (settings.order if settings else "priority")',
        'settings.order if settings else "priority"',
    ),
)

BLIND_BEFORE = ("tests/test_woken.py", "tests/test_retried_order.py", "tests/test_deferred_push.py")
"""What sees bugs that the others cannot: in the simulator a poll stands in for every lost wake-up."""

HUNTS = (
    ("simulator", ["-m", "tests.simulation", "--seeds", "0:150"]),
    ("crowded simulator", ["-m", "tests.simulation", "--seeds", "0:200", "--profile", "crowded"]),
    ("state machine", ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/test_state_machine.py"]),
    ("conformance", ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/test_conformance.py"]),
    ("wake-ups and orders", ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *BLIND_BEFORE]),
)


class Found(NamedTuple):
    """By what a mutant was found, if by anything, in how many seconds, and what it said."""

    mutant: Mutant
    by: str
    seconds: float
    said: str


def main(names: list[str]) -> int:
    """Plant the mutants whose names hold one of ``names``, or all; returns the exit code."""
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    if stale := [mutant.name for mutant in chosen if not fits(mutant, ROOT)]:
        print(f"the text that they replace has changed: {'; '.join(stale)}")
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
    return int(len(escaped) > MAY_ESCAPE)


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


def fits(mutant: Mutant, house: Path) -> bool:
    """Whether the text that a mutant replaces is there, once."""
    return (house / "jobify_django" / mutant.file).read_text().count(mutant.old) == 1


def plant(mutant: Mutant, house: Path) -> None:
    """Change the copy of the package in ``house``."""
    file = house / "jobify_django" / mutant.file
    file.write_text(file.read_text().replace(mutant.old, mutant.new))


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
