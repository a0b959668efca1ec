"""Why a store did not take the end of an attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jobify_django.job import RUNNING, JobRecord
from jobify_django.outcome import Outcome
from jobify_django.stores.base import Store


def refusals(store: Store, refused: Sequence[Outcome]) -> Mapping[tuple[str, int], str]:
    """Return why each of the refused outcomes was, by id and attempt.

    An empty text stands for one that is stored all the same: only the reply to an earlier try was lost. All
    of them are read at once; with none nothing is read. It raises nothing.
    """
    if not refused:
        return {}
    try:
        records = store.get([outcome.id for outcome in refused])
    except Exception as error:
        unread = f"the job is not held by this attempt any more; why could not be read: {error}"
        return {(outcome.id, outcome.attempt): unread for outcome in refused}
    return {(outcome.id, outcome.attempt): _why(outcome, records.get(outcome.id)) for outcome in refused}


def _why(outcome: Outcome, record: JobRecord | None) -> str:
    if record is None:
        return "the job is not in the store any more: it was deleted"
    if record.attempt != outcome.attempt:
        return _of_another(record)
    if _is_stored(outcome, record):
        return ""
    if record.status.ended:
        error = "" if record.error is None else f", {record.error.message}"
        return f"the job has ended meanwhile: {record.status}{error}"
    if record.status is RUNNING:
        return "the store says that this attempt still runs: its rows were changed by hand, or restored"
    reason = f": {record.history[-1].reason}" if record.history else ""
    return f"the job was taken back and waits again{reason}"


def _of_another(record: JobRecord) -> str:
    if record.status is RUNNING:
        return "another attempt holds the job now"
    if record.status.ended:
        return f"another attempt has run the job: {record.status}"
    return f"another attempt has begun the job since, and it is {record.status} again"


def _is_stored(outcome: Outcome, record: JobRecord) -> bool:
    """Whether the job's end is this one. What others end (crashed, cancelled) has another status or error."""
    mine = None if outcome.error is None else outcome.error.type
    theirs = None if record.error is None else record.error.type
    return record.status is outcome.status and mine == theirs
