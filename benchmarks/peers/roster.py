"""Who takes part in which store's table, and what is measured: names, numbers of jobs, and notes."""

from __future__ import annotations

from dataclasses import dataclass, field

RECOMMENDED, FASTEST = "recommended", "fastest"


@dataclass(frozen=True)
class Contestant:
    """One contestant.

    ``side`` is its module in ``sides``, ``environment`` its file in ``requirements`` (without ``.txt``),
    ``package`` the distribution whose version the table shows. ``pace`` is the share of the jobs that it
    gets, by set-up: slow ones get fewer, so that the whole takes an hour and not a day; a shorter queue is in
    their favour. ``setups`` says what each set-up is, ``lacks`` what the contestant does not do that Jobify
    does.
    """

    name: str
    title: str
    side: str
    environment: str
    package: str
    setups: dict[str, str]
    lacks: str
    pace: dict[str, float] = field(default_factory=dict)
    node: str = ""


@dataclass(frozen=True)
class Row:
    """One cell for each contestant: what happens, and the figures it gives, each with unit and direction."""

    name: str
    title: str
    cell: str
    jobs: int
    columns: tuple[tuple[str, str], ...]
    kind: str = "def"
    workers: int = 10
    seconds: float = 0.0
    together: int = 0


RATE = (("rate", "jobs/s"),)

DATABASE_ROWS = (
    Row("push", "push one by one", "push", 3_000, (*RATE, ("server_us", "us of the server"))),
    Row("push-many", "push many at once", "push_many", 10_000, RATE),
    Row("drain-def-10", "drain, 10 workers, `def`", "drain", 10_000, RATE),
    Row("drain-def-100", "drain, 100 workers, `def`", "drain", 10_000, RATE, workers=100),
    Row("drain-async-10", "drain, 10 workers, `async def`", "drain", 10_000, RATE, kind="async"),
    Row(
        "drain-async-100", "drain, 100 workers, `async def`", "drain", 10_000, RATE, kind="async", workers=100
    ),
    Row("both", "push and run at once", "both", 3_000, (*RATE, ("server_us", "us of the server"))),
    Row(
        "pickup",
        "pick-up",
        "pickup",
        300,
        (("p50_ms", "ms p50"), ("p95_ms", "ms p95"), ("p99_ms", "ms p99")),
        seconds=20.0,
    ),
    Row(
        "idle",
        "idle",
        "idle",
        50,
        (
            ("start_ms", "ms to the first job"),
            ("memory_mb", "MB"),
            ("idle_percent", "% of a core"),
            ("idle_statements", "statements/s"),
        ),
        seconds=15.0,
    ),
)

MEMORY_COLUMNS = (*RATE, ("cpu_us", "us CPU a job"))
MEMORY_ROWS = (
    Row("one", "push and await, one by one", "memory", 20_000, MEMORY_COLUMNS, kind="async", together=1),
    Row("hundred", "100 at once", "memory", 20_000, MEMORY_COLUMNS, kind="async", together=100),
    Row(
        "flood",
        "push all, then await all",
        "memory",
        20_000,
        (*MEMORY_COLUMNS, ("memory_mb", "MB")),
        kind="async",
    ),
)

ROWS = {"sqlite": DATABASE_ROWS, "postgresql": DATABASE_ROWS, "memory": MEMORY_ROWS}

JOBIFY = Contestant(
    "jobify-django",
    "Jobify for Django",
    "jobify_django",
    "jobify-django",
    "this tree",
    {RECOMMENDED: "`runjobs` and the defaults; only `MAXSIZE` is raised above what the bench pushes ahead"},
    "automatic retries, time limits, schedules",
)
BARE = Contestant(
    "bare",
    "Bare bound",
    "bare",
    "jobify-django",
    "this tree",
    {RECOMMENDED: "a Django cursor that inserts Jobify's row; a loop that claims, runs in turn and settles"},
    "no tasks, bound, lease, fence, result or wake-up: idle, it looks every millisecond",
)
TASKS_DB = Contestant(
    "django-tasks-db",
    "django-tasks-db",
    "django_tasks_db",
    "django-tasks-db",
    "django-tasks-db",
    {
        RECOMMENDED: "`db_worker`, which looks once a second",
        FASTEST: "persistent connections, a look every 10 ms; two worker processes on PostgreSQL",
    },
    "no bound; no lease: a killed worker's job stays running; one job at a time in a process; no push of "
    "many (a loop in one transaction instead)",
    {RECOMMENDED: 0.1, FASTEST: 0.2},
)
OX = Contestant(
    "django-ox",
    "django-ox",
    "django_ox",
    "django-ox",
    "django-ox",
    {
        RECOMMENDED: "`ox_worker --concurrency N`, which looks once a second",
        FASTEST: "persistent connections and `--interval 0.05`",
    },
    "no bound; no wake-up: it looks at intervals. It has leases, fences and results, and retries besides",
    {RECOMMENDED: 0.1, FASTEST: 0.2},
)
DJ_QUEUE = Contestant(
    "dj_queue",
    "dj_queue",
    "dj_queue",
    "dj_queue",
    "dj-queue",
    {
        RECOMMENDED: "`manage.py dj_queue` in its default fork mode, N threads",
        FASTEST: "persistent connections, `--only-work`, a look every 10 ms, finished jobs not kept",
    },
    "no bound; jobs of a dead worker are kept as failed, for someone to retry; results only in the "
    "recommended set-up",
    {RECOMMENDED: 0.2, FASTEST: 0.2},
)
VTASKS = Contestant(
    "django-vtasks",
    "django-vtasks",
    "django_vtasks",
    "django-vtasks",
    "django-vtasks",
    {
        RECOMMENDED: "`runworker --concurrency N`, which looks every 0.1 to 1 s",
        FASTEST: "persistent connections and a batch queue: the task gets a list of up to 100 jobs, and they "
        "fail together",
    },
    "no bound, no result (a finished job's row is deleted), no fence, no wake-up; a dead worker's jobs are "
    "found on the same host only, and fail by default",
    {RECOMMENDED: 0.2},
)
HUEY = Contestant(
    "huey",
    "Huey",
    "huey",
    "huey",
    "huey",
    {
        RECOMMENDED: "`huey_consumer -k thread -w N`; on SQLite each commit is synced, which is its default "
        "(all others here run with `synchronous=NORMAL`)",
        FASTEST: "no results, first look after 1 ms; on SQLite no fsync",
    },
    "no bound, no lease, no fence: a job is deleted when it is taken, so a killed worker's job is gone; no "
    "`async def`; no push of many; arguments are pickled; a job that returns `None` has no result",
)
PROCRASTINATE = Contestant(
    "procrastinate",
    "procrastinate",
    "procrastinate",
    "procrastinate",
    "procrastinate",
    {
        RECOMMENDED: "`App.run_worker(concurrency=N)`, `defer` and `batch_defer`",
        FASTEST: "`delete_jobs=successful`, pushed by its async connector",
    },
    "no bound, no result, no fence (an outcome asks only for the job's id); stalled jobs need a task of the "
    "user's that looks for them",
    {RECOMMENDED: 0.2, FASTEST: 0.2},
)
PGQUEUER = Contestant(
    "pgqueuer",
    "pgqueuer",
    "pgqueuer",
    "pgqueuer",
    "pgqueuer",
    {
        RECOMMENDED: "`PgQueuer.run` on one asyncpg connection, batches of 10 (5 for 10 workers: the limit "
        "must be twice the batch), N jobs at once",
        FASTEST: "a pool, batches of 100, no limit of jobs at once, so N is not kept",
    },
    "no bound, no result of a job; no `def` jobs (they go to a thread by hand)",
)
AWA = Contestant(
    "awa",
    "awa",
    "awa",
    "awa",
    "awa-pg",
    {
        RECOMMENDED: "`AsyncClient.start([(queue, N)])`, `insert`, `insert_many_copy`",
        FASTEST: "two claimers of up to 512 jobs, `enqueue_many_copy`",
    },
    "no bound, no result of a job; no `def` jobs (they go to a thread by hand); a runtime in Rust",
    {RECOMMENDED: 0.5},
)
GRAPHILE = Contestant(
    "graphile-worker",
    "graphile-worker",
    "graphile_worker",
    "jobify-django",
    "graphile-worker",
    {
        RECOMMENDED: "`run({concurrentJobs: N})`, `addJob`, `addJobs`",
        FASTEST: "a local queue of 500 and outcomes stored in batches, as its page on performance has it",
    },
    "another language (Node); no bound, no result, a lock of four hours for a lease; the local queue holds "
    "jobs that do not run and gives up exact priority",
    {RECOMMENDED: 0.3},
    node="graphile-worker",
)

MEMORY = (
    Contestant(
        "jobify-django",
        "Jobify for Django",
        "jobify_django_memory",
        "jobify-django",
        "this tree",
        {RECOMMENDED: "the memory store, served by the event loop that pushes; 100 workers, `MAXSIZE` 1,024"},
        "schedules, automatic retries",
    ),
    Contestant(
        "jobify",
        "jobify",
        "jobify",
        "jobify",
        "jobify",
        {
            RECOMMENDED: "`QueueMiddleware`, 100 workers, a queue of 1,024, its SQLite storage",
            FASTEST: "the same without its storage",
        },
        "no bound that a push waits for; no order among equals",
        {RECOMMENDED: 0.2},
    ),
    Contestant(
        "taskiq",
        "taskiq",
        "taskiq",
        "taskiq",
        "taskiq",
        {
            RECOMMENDED: "`InMemoryBroker`, up to 100 tasks at once; a result is asked for every 0.2 s",
            FASTEST: "no pause between the questions, and no look at the arguments' types",
        },
        "no queue, no bound and no priorities: each push is an asyncio task at once; meant for "
        "local development",
        {RECOMMENDED: 0.005, FASTEST: 0.5},
    ),
    Contestant(
        "bare",
        "Bare bound",
        "bare_memory",
        "jobify-django",
        "this tree",
        {RECOMMENDED: "an `asyncio.PriorityQueue` of 1,024, 100 workers, a future and a task for each job"},
        "no names, arguments, results that outlive the await, cancelling, or failures",
    ),
)

CONTESTANTS = {
    "sqlite": (JOBIFY, BARE, TASKS_DB, OX, DJ_QUEUE, VTASKS, HUEY),
    "postgresql": (
        JOBIFY,
        BARE,
        TASKS_DB,
        OX,
        DJ_QUEUE,
        VTASKS,
        HUEY,
        PROCRASTINATE,
        PGQUEUER,
        AWA,
        GRAPHILE,
    ),
    "memory": MEMORY,
}
