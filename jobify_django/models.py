"""The database store's tables. Only ``stores.database`` writes them, in SQL of its own."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from jobify_django.index import PartialIndex
from jobify_django.job import JobStatus


class Job(models.Model):
    """One pushed call of a task. Times are seconds since the epoch, so no time zone setting applies."""

    class Status(models.TextChoices):
        DELAYED = JobStatus.DELAYED, _("delayed")
        WAITING = JobStatus.WAITING, _("waiting")
        RUNNING = JobStatus.RUNNING, _("running")
        SUCCESSFUL = JobStatus.SUCCESSFUL, _("successful")
        FAILED = JobStatus.FAILED, _("failed")
        CANCELLED = JobStatus.CANCELLED, _("cancelled")

    id = models.CharField(_("id"), primary_key=True, max_length=36)
    queue = models.CharField(_("queue"), max_length=64)
    task = models.CharField(_("task"), max_length=255)
    arguments = models.TextField(_("arguments"))
    priority = models.SmallIntegerField(_("priority"), default=0)
    status = models.CharField(_("status"), max_length=10, choices=Status)
    sequence = models.BigIntegerField(_("sequence"))
    order_key = models.BigIntegerField(_("order key"))
    attempt = models.PositiveIntegerField(_("attempts"), default=0)
    crashes = models.PositiveSmallIntegerField(_("crashes"), default=0)
    pushed_at = models.FloatField(_("pushed at"))
    eligible_at = models.FloatField(_("eligible at"))
    started_at = models.FloatField(_("started at"), null=True)
    ended_at = models.FloatField(_("ended at"), null=True)
    lease_until = models.FloatField(_("lease until"), null=True)
    pool = models.CharField(_("pool"), max_length=36, default="")
    cancel_requested = models.BooleanField(_("cancel requested"), default=False)
    result = models.TextField(_("result"), null=True)  # noqa: DJ001 - no result differs from an empty one
    error = models.TextField(_("error"), null=True)  # noqa: DJ001
    history = models.TextField(_("interruptions"), null=True)  # noqa: DJ001
    # Pools of an older version insert without it.
    flags = models.PositiveSmallIntegerField(_("flags"), default=0, db_default=0)
    extra = models.TextField(_("extra"), null=True)  # noqa: DJ001

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        db_table = "jobify_job"
        default_permissions = ("view",)
        permissions = [
            ("view_job_payload", "Can see arguments, results and tracebacks"),
            ("retry_job", "Can retry jobs"),
            ("cancel_job", "Can cancel jobs"),
        ]
        indexes = [
            PartialIndex(
                name="jobify_job_waiting",
                fields=["queue", "order_key", "sequence"],
                only=Q(status=JobStatus.WAITING.value),
                whole=["queue", "status", "order_key", "sequence"],
            ),
            PartialIndex(
                name="jobify_job_delayed",
                fields=["queue", "eligible_at"],
                only=Q(status=JobStatus.DELAYED.value),
                whole=["queue", "status", "eligible_at"],
            ),
            PartialIndex(
                name="jobify_job_running",
                fields=["queue"],
                only=Q(status=JobStatus.RUNNING.value),
                whole=["status", "lease_until"],
            ),
            PartialIndex(
                name="jobify_job_ended",
                fields=["status", "ended_at"],
                only=Q(ended_at__isnull=False),
                whole=["status", "ended_at"],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.task} {self.id}"


class Queue(models.Model):
    """A queue's live values (null where the settings rule) and its counters."""

    name = models.CharField(_("name"), primary_key=True, max_length=64)
    version = models.PositiveIntegerField(_("version"), default=0)
    workers = models.PositiveIntegerField(_("workers"), null=True)
    maxsize = models.PositiveIntegerField(_("maxsize"), null=True)
    order = models.CharField(_("order"), max_length=8, default="")
    paused = models.BooleanField(_("paused"), default=False)
    waiting = models.BigIntegerField(_("waiting"), default=0)
    sequence = models.BigIntegerField(_("sequence"), default=0)
    reordering = models.BigIntegerField(_("reordering"), null=True)

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        db_table = "jobify_queue"
        default_permissions = ("view",)
        permissions = [("tune_queue", "Can tune, pause and resume queues")]

    def __str__(self) -> str:
        return self.name


class QueueChange(models.Model):
    """Who changed a queue's live values, when, through which door, from what to what."""

    queue = models.CharField(_("queue"), max_length=64)
    version = models.PositiveIntegerField(_("version"))
    actor = models.CharField(_("actor"), max_length=150)
    source = models.CharField(_("source"), max_length=16)
    changed_at = models.FloatField(_("changed at"))
    before = models.TextField(_("before"))
    after = models.TextField(_("after"))

    class Meta:
        verbose_name = _("queue change")
        verbose_name_plural = _("queue changes")
        db_table = "jobify_queuechange"
        default_permissions = ("view",)
        indexes = [models.Index(fields=["queue", "-id"], name="jobify_queuechange_newest")]

    def __str__(self) -> str:
        return f"{self.queue} {self.version}"


class Pool(models.Model):
    """A pool as it last reported itself."""

    id = models.CharField(_("id"), primary_key=True, max_length=36)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    kind = models.CharField(_("kind"), max_length=16)
    started_at = models.FloatField(_("started at"))
    seen_at = models.FloatField(_("seen at"))
    queues = models.TextField(_("queues"))

    class Meta:
        verbose_name = _("pool")
        verbose_name_plural = _("pools")
        db_table = "jobify_pool"
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class Overview(Queue):
    """All queues at once: it gives the admin's overview a place in the admin's index.

    A proxy, so that what walks all models (``dumpdata`` and its like) finds a table, or passes it by.
    """

    class Meta:
        proxy = True
        verbose_name = _("overview")
        verbose_name_plural = _("overview")
        default_permissions = ()
