"""A network that stalls, goes deaf, cuts, half-closes, delays, and loses replies of COMMITs."""

from __future__ import annotations

from collections.abc import Mapping

from chaos import process
from chaos.database import Server
from chaos.ground import Ground
from chaos.proxy import Proxy
from chaos.verdict import Pushes, Runs
from jobify_django.job import JobRecord

STORES = ("postgresql", "mariadb")
SETTINGS = {"MAX_RUNNING": 16}
JOBS, FAULTS, PRODUCERS = 6_000, 60, 3
ROUND = 3.5
FAULTS_BY_NAME = ("cut", "half_close", "lose_commits", "lose_commits", "delay", "stall", "deafen")


def run(ground: Ground) -> None:
    """Let one thing after another go wrong between everybody and the server."""
    assert isinstance(ground.database, Server)
    jobs, faults = ground.jobs(JOBS), ground.jobs(FAULTS)
    proxy = Proxy(ground.database.port)
    through = {"DATABASE_URL": ground.database.url(proxy.port)}
    ground.begin(4, **through)
    rate = jobs / faults / ROUND / PRODUCERS
    ground.produce(jobs, processes=PRODUCERS, rate=rate, longest=0.2, environment=through)
    for number in range(faults):
        process.wait(ground.chance.uniform(0.5, 2.0))
        # The two that only a deadline ends come a few times each, or the campaign would be all waiting.
        fault = ground.chance.choice(FAULTS_BY_NAME[: None if number % 6 == 5 else -1])
        if fault == "delay":
            proxy.delay = ground.chance.uniform(0.02, 0.1)
        elif fault == "lose_commits":
            proxy.lose_commits(ground.chance.randint(1, 5))
        else:
            getattr(proxy, fault)()
        process.wait(ground.chance.uniform(0.5, 3.0))
        proxy.heal()
        ground.say(f"{number + 1} {fault}, {ground.started()} starts")
    ground.drain(150)
    ground.verdict.count("faults", faults)
    ground.verdict.count("replies of COMMIT lost", proxy.lost)


def judge(ground: Ground, records: Mapping[str, JobRecord], pushes: Pushes, runs: Runs) -> None:
    """Whatever was cut, a push whose fate was unknown is stored once or not at all (see the verdict)."""
