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


MEMORY = "stores/memory.py"
STORE = "stores/database/store.py"
DATABASE = "stores/database/database.py"
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
        "WHERE (id, attempt) IN (VALUES {pairs}) AND status = 'running'",
        "WHERE id IN (SELECT column1 FROM (VALUES {pairs})) AND status = 'running'",
    ),
    Mutant(
        "a lease is renewed by whoever held the job before (database)",
        SQLITE,
        "WHERE (id, attempt) IN (VALUES {pairs}) AND pool = ? AND status = 'running'",
        "WHERE id IN (SELECT column1 FROM (VALUES {pairs})) AND ? > '' AND status = 'running'",
    ),
    Mutant(
        "the bound is off by one (memory)",
        MEMORY,
        "if line.waiting + len(specs) > maxsize:",
        "if line.waiting + len(specs) > maxsize + 1:",
    ),
    Mutant(
        "the bound is off by one (database)",
        STORE,
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
        "a release is charged (memory)",
        MEMORY,
        "row.interrupted(reason, now, charged=False)\n            self._come_back(row, now)",
        "row.crashes += 1\n            row.interrupted(reason, now, charged=True)\n"
        "            self._come_back(row, now)",
    ),
    Mutant(
        "a release wakes nobody (database)",
        STORE,
        "records = self._db.write(work)\n        self._tell_work(record.queue for record in records)",
        "records = self._db.write(work)",
    ),
    Mutant(
        "a resumed queue wakes nobody (memory)",
        MEMORY,
        "        self.hints.work(queue.name)\n        self.hints.room(queue.name)\n        return state",
        "        self.hints.room(queue.name)\n        return state",
    ),
    Mutant(
        "jobs are taken from pools that live (memory)",
        MEMORY,
        "(r.lease_until or 0) < now",
        "(r.lease_until or 0) < now + 1000",
    ),
    Mutant(
        "a crash is not counted (memory)",
        MEMORY,
        "row.crashes += 1",
        "row.crashes += 0",
    ),
    Mutant(
        "suspects run beside others (memory)",
        MEMORY,
        "(row.crashes if suspect is None else row is not suspect)",
        "(suspect is not None and row is not suspect)",
    ),
    Mutant(
        "suspects run beside others (database)",
        DATABASE,
        "'crashes = 0'",
        "'crashes >= 0'",
    ),
    Mutant(
        "a suspect starts beside what has just started",
        "pool/probation.py",
        'return "wait" if any(job and now - job.began < PROBATION for job in youngest) else "start"',
        'return "start"',
    ),
    Mutant(
        "others start beside a suspect",
        "pool/pool.py",
        "wants = {} if alone else self._wants()",
        "wants = self._wants()",
    ),
    Mutant(
        "leases are renewed too late",
        "pool/upkeep.py",
        "Chore(self._renew, lease / 3, first=lease / 3)",
        "Chore(self._renew, lease * 2, first=lease * 2)",
    ),
    Mutant(
        "an outcome is dropped where the store fails",
        "pool/pool.py",
        "self.completer.put_back(outcomes)",
        "pass",
    ),
    Mutant(
        "jobs of a lost reply are not handed back",
        "pool/pool.py",
        "self.store.release_unknown(self.id, self.completer.held())",
        "pass",
    ),
    Mutant(
        "more is claimed than workers are idle",
        "pool/workers.py",
        "return max(0, self.size - len(self._running))",
        "return max(0, self.size + 1 - len(self._running))",
    ),
    Mutant(
        "a tuned size is not applied",
        "pool/pool.py",
        "slots.size = self._fixed or state.workers or self.queues[name].workers",
        "pass",
    ),
    Mutant(
        "a tuned version is not remembered",
        "pool/pool.py",
        "slots.version = slots.version if state.reordering else state.version",
        "pass",
    ),
    Mutant(
        "a stopping pool keeps its jobs",
        "pool/pool.py",
        "if held:\n                self._released",
        "if not held:\n                self._released",
    ),
    Mutant(
        "a cancelled job starts all the same (memory)",
        MEMORY,
        "if row.status is WAITING and row.id not in running:",
        "if row.id not in running:",
    ),
    Mutant(
        "a delayed job starts early (memory)",
        MEMORY,
        "self.delayed[0][0] <= now",
        "self.delayed[0][0] <= now + 0.5",
    ),
    Mutant(
        "a cancelled job still counts (database)",
        STORE,
        "self._db.note(db, queue, -number)",
        "pass",
    ),
    Mutant(
        "many pushed at once count twice (database)",
        SQLITE,
        'waiting = sum(row[5] == "waiting" for row in fresh)',
        'waiting = 2 * sum(row[5] == "waiting" for row in fresh)',
    ),
    Mutant(
        "a retried job keeps its old place (database)",
        STORE,
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
        "pool/driver.py",
        """            self._alarm.clear()
            self._urgent.clear()
            if not self._stopping:
                pause = self._step()
""",
        """            if not self._stopping:
                pause = self._step()
            self._alarm.clear()
            self._urgent.clear()
""",
    ),
    Mutant(
        "of two outcomes of one job both count as stored (database)",
        STORE,
        "if (one.id, one.attempt) not in ended",
        "if one.id not in {id for id, _ in ended}",
    ),
    Mutant(
        "a job that has ended is reported lost",
        "pool/pool.py",
        '"lost" not in running.asked and running.slots.holds(running)',
        '"lost" not in running.asked',
    ),
    Mutant(
        "a job that a stopping pool hands back is reported lost",
        "pool/upkeep.py",
        "            if self._stop.is_set():\n                return  # the pool",
        "            if self._stop.is_set():\n                pass  # the pool",
    ),
    Mutant(
        "more jobs run than all pools together may (memory)",
        MEMORY,
        "want = min(want, caps[name] - line.held(now))",
        "want = min(want, caps[name])",
    ),
    Mutant(
        "a paused queue lets pools turn in a circle (database)",
        STORE,
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
        'line.state.order or (settings.order if settings else "priority")',
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
