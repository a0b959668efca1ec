"""Background jobs for Django that push back: a bounded queue, and producers that wait while it is full."""

from jobify_django.exceptions import (
    DuplicateTask,
    InvalidPayload,
    InvalidTask,
    InvalidTuning,
    JobCancelled,
    JobFailed,
    JobifyError,
    JobNotFinished,
    JobNotFound,
    QueueFull,
    StaleVersion,
    StoreBusy,
    StoreError,
    StoreUncertain,
    StoreUnmigrated,
    UnknownBand,
    UnknownQueue,
    UnknownTask,
    WaitDeadlock,
    WaitTimeout,
)
from jobify_django.handle import Job, aget_job, get_job
from jobify_django.job import JobStatus
from jobify_django.queue import Queue, queue
from jobify_django.stores.value import QueueStats
from jobify_django.task import AsyncTask, Task, task

__all__ = [
    "AsyncTask",
    "DuplicateTask",
    "InvalidPayload",
    "InvalidTask",
    "InvalidTuning",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotFinished",
    "JobNotFound",
    "JobStatus",
    "JobifyError",
    "Queue",
    "QueueFull",
    "QueueStats",
    "StaleVersion",
    "StoreBusy",
    "StoreError",
    "StoreUncertain",
    "StoreUnmigrated",
    "Task",
    "UnknownBand",
    "UnknownQueue",
    "UnknownTask",
    "WaitDeadlock",
    "WaitTimeout",
    "aget_job",
    "get_job",
    "queue",
    "task",
]

__version__ = "0.1.0"
