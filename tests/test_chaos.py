"""The verdict of the chaos campaign sees what it is there for: each test plants one broken promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.fleet import Fleet
from chaos.ledger import Ledger
from chaos.verdict import Verdict, examine
from jobify_django.job import Interruption, JobRecord, JobStatus

KEY, ID = "p1.0", "id-0"
RECORD = JobRecord(
    ID, "default", "work", "[]", 0, JobStatus.SUCCESSFUL, 1, attempt=1, crashes=0, pushed_at=0.0,
    eligible_at=0.0, result="1",
)  # fmt: skip
RESCUED = Interruption(1, "its worker's lease ran out", 0.0, "pool", charged=True)

Examine = Callable[..., Verdict]


@pytest.fixture
def pushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The ledger of producers; one job was pushed and acknowledged."""
    monkeypatch.setenv("CHAOS_DIRECTORY", str(tmp_path))
    ledger = Ledger("pushes")
    ledger.write("T", KEY)
    ledger.write("A", KEY, ID, "0.001")
    return ledger


@pytest.fixture
def jobs(pushes: Ledger) -> Ledger:
    """The jobs' own; its first attempt started and ended."""
    ledger = Ledger("jobs")
    ledger.write("S", KEY, ID, 1, 100)
    ledger.write("E", KEY, ID, 1, 100)
    return ledger


@pytest.fixture
def judged(jobs: Ledger, tmp_path: Path) -> Examine:
    def judge(*records: JobRecord, keys: dict[str, str] | None = None, cap: int | None = None) -> Verdict:
        verdict = Verdict()
        by_id = {record.id: record for record in records}
        examine(verdict, by_id, keys or dict.fromkeys(by_id, KEY), Fleet(tmp_path, {}), bound=5, cap=cap)
        return verdict

    return judge


def test_a_whole_campaign_breaks_nothing(judged: Examine) -> None:
    verdict = judged(RECORD)
    assert verdict.broken == []
    assert "pushed 1, acknowledged 1" in verdict.line()
    assert verdict.line().endswith(": ok")


def test_an_acknowledged_push_without_a_row_is_lost(judged: Examine) -> None:
    assert "1 lost: p1.0" in judged().broken


def test_a_job_that_has_not_ended_is_stuck_and_lost(judged: Examine) -> None:
    broken = judged(RECORD._replace(status=JobStatus.RUNNING)).broken
    assert broken == ["1 lost: p1.0", "1 stuck: id-0 running"]


def test_a_job_that_nobody_pushed_is_invented(judged: Examine, jobs: Ledger) -> None:
    jobs.write("S", "nobody's", "id-1", 1, 100)
    assert any(line.endswith("invented: id-1, nobody's") for line in judged(RECORD).broken)


def test_a_refused_push_whose_job_runs_is_invented(judged: Examine, pushes: Ledger) -> None:
    pushes.write("R", KEY)
    assert "1 invented: p1.0" in judged(RECORD).broken


def test_one_push_with_two_rows_is_stored_twice(judged: Examine) -> None:
    twin = RECORD._replace(id="id-1", status=JobStatus.CANCELLED)
    assert "1 pushed once and stored twice: p1.0" in judged(RECORD, twin).broken


def test_a_success_of_an_attempt_that_never_ended_is_hollow(judged: Examine) -> None:
    record = RECORD._replace(attempt=2, result="2", history=(RESCUED,))
    assert "1 ended without running: id-0" in judged(record).broken


def test_a_second_start_needs_a_recorded_reason(judged: Examine, jobs: Ledger) -> None:
    jobs.write("S", KEY, ID, 2, 101)
    jobs.write("E", KEY, ID, 2, 101)
    again = RECORD._replace(attempt=2, result="2")
    assert "1 started again without one: id-0" in judged(again).broken
    explained = judged(again._replace(history=(RESCUED,)))
    assert explained.broken == []
    assert explained.counts["started again with a recorded reason"] == 1


def test_one_attempt_that_starts_twice_has_no_reason_at_all(judged: Examine, jobs: Ledger) -> None:
    jobs.write("S", KEY, ID, 1, 101)
    assert "1 started again without one: id-0" in judged(RECORD).broken


def test_an_older_attempts_result_is_a_stale_write(judged: Examine, jobs: Ledger) -> None:
    jobs.write("S", KEY, ID, 2, 101)
    jobs.write("E", KEY, ID, 2, 101)
    record = RECORD._replace(attempt=2, result="1", history=(RESCUED,))
    assert "1 stale writes accepted: id-0" in judged(record).broken


def test_two_ends_stored_of_one_job_are_a_stale_write(judged: Examine, tmp_path: Path) -> None:
    line = f"event=done id={ID} task=work queue=default attempt=1\n"
    (tmp_path / "pool-001.log").write_text(line)
    assert judged(RECORD).broken == []
    (tmp_path / "pool-002.log").write_text(line)
    assert "1 stale writes accepted: id-0" in judged(RECORD).broken


def test_samples_over_the_bound_and_over_max_running_are_seen(judged: Examine) -> None:
    samples = Ledger("samples")
    samples.write("M", 10, 9, 5, 3)
    assert judged(RECORD, cap=3).broken == []
    samples.write("M", 10, 9, 6, 4)
    assert judged(RECORD, cap=3).broken == ["1 over the bound: 6", "1 over MAX_RUNNING: 4"]


def test_a_figure_past_its_limit_is_broken(judged: Examine) -> None:
    verdict = judged(RECORD)
    verdict.hold("rescue max s", 11.0, at_most=10)
    verdict.hold("starts a second", 40.0, at_least=50)
    assert verdict.broken == ["rescue max s 11 (at most 10)", "starts a second 40 (at least 50)"]
    assert verdict.line().endswith(": BROKEN")
