"""The bench beside the peers, without the peers: who is on its list, what it counts, and what it prints."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("benchmarks.peers", reason="the benchmarks are not in the source distribution")

from benchmarks.peers import environments, markdown, tally
from benchmarks.peers.counting import Count
from benchmarks.peers.roster import CONTESTANTS, ROWS, Contestant

EVERYBODY = {each.side: each for contestants in CONTESTANTS.values() for each in contestants}
SIDES = Path(markdown.__file__).parent / "sides"


@pytest.mark.parametrize("contestant", EVERYBODY.values(), ids=EVERYBODY)
def test_a_contestant_has_a_side_and_pinned_requirements(contestant: Contestant) -> None:
    requirements = (environments.REQUIREMENTS / f"{contestant.environment}.txt").read_text()
    named = [line for line in requirements.splitlines() if line and not line.startswith("#")]

    assert (SIDES / f"{contestant.side}.py").is_file()
    assert named
    assert [line for line in named if "==" not in line] == []


def test_no_requirements_without_a_contestant() -> None:
    files = {file.stem for file in environments.REQUIREMENTS.glob("*.txt")}

    assert files == {contestant.environment for contestant in EVERYBODY.values()}


def test_jobs_of_several_processes_are_all_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tally.VARIABLE, str(tmp_path / "tally"))
    counted = tally.Tally()
    marks = "from benchmarks.peers.tally import mark; [mark() for _ in range(200)]"
    processes = [subprocess.Popen([sys.executable, "-c", marks], env=os.environ) for _ in range(2)]

    assert [process.wait(60) for process in processes] == [0, 0]
    assert counted.count() == 400
    assert len(counted.moments(skip=100)) == 300


class Written:
    """The far end of a relay: it keeps what it is sent."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    async def drain(self) -> None:
        """Nothing waits."""


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body


async def test_the_relay_counts_statements_and_passes_all_bytes_on() -> None:
    reader, far, count = asyncio.StreamReader(), Written(), Count()
    encryption = message(b"", (80877103).to_bytes(4))
    start = message(b"", (3 << 16).to_bytes(4) + b"user\0q\0\0")
    extended = message(b"P", b"s\0SELECT 1\0") + message(b"B", b"Q") + message(b"E", b"\0")
    sent = encryption + start + message(b"Q", b"SELECT 1\0") + extended + message(b"X", b"")
    reader.feed_data(sent)
    reader.feed_eof()

    with pytest.raises(asyncio.IncompleteReadError):
        await count.relay(reader, far)  # type: ignore[arg-type]

    assert count.statements == 2
    assert far.data == sent


def a_document(**results: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {"runs": [], "unsupported": "", "failures": []}
    return {
        "date": "2026-11-30",
        "store": "sqlite",
        "machine": "2 cores",
        "rounds": 3,
        "scale": 1.0,
        "note": "",
        "tree": "abc",
        "server": None,
        "versions": {"jobify-django": {"Django": "6.1"}, "huey": {"huey": "3.5"}},
        "missing": {"django-ox": "pip ended with 1"},
        "rows": [row.name for row in ROWS["sqlite"]],
        "results": [
            {"row": row, "contestant": name, "setup": "recommended", **nothing, **result}
            for name, by_row in results.items()
            for row, result in by_row.items()
        ],
    }


def test_a_table_has_medians_the_spread_and_a_reason_for_each_dash() -> None:
    ours = {"push": {"runs": [{"rate": 900.0}, {"rate": 1_100.0}, {"rate": 1_000.0}]}}
    huey = {"push": {"failures": ["it said nothing"]}, "push-many": {"unsupported": "no push of many"}}

    text = markdown.tables(a_document(**{"jobify-django": ours, "huey": huey}))

    assert "| Jobify for Django | 1,000 (900-1,100) |" in text
    assert "| Huey, recommended | — |" in text
    assert "- Huey (recommended), push: failed: it said nothing." in text
    assert "- Huey (recommended), push-many: no push of many." in text
    assert "- django-ox was left out: pip ended with 1" in text


def test_tables_take_the_place_that_a_page_has_for_them() -> None:
    page = "# P\n\n<!-- figures: sqlite -->\nold\n<!-- end of figures: sqlite -->\nend\n"

    assert "new" in (once := markdown.replaced(page, "sqlite", "new"))
    assert "old" not in once
    assert markdown.replaced(once, "sqlite", "new") == once
    with pytest.raises(ValueError, match="no place"):
        markdown.replaced(page, "memory", "new")


def test_the_page_has_a_place_for_each_store() -> None:
    page = Path(__file__).parents[1].joinpath("docs/explanation/peers.md").read_text()

    for store in CONTESTANTS:
        assert "-->\n\nnew\n<!--" in markdown.replaced(page, store, "new")
