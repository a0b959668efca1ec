"""Django signals this app sends.

``queue_changed`` (sender: the queue's name; ``state``: the new ``QueueState``; ``actor``: who did it)
after a queue was tuned, paused, resumed or reset in this process.

``job_ended`` (sender: the task's name; ``outcome``: the ``Outcome``; ``exception``: what a failed job raised,
otherwise ``None``) after a pool of this process has written the end of a job. It is sent from the pool's
thread: receivers must be quick. The exception's traceback has its files, lines and functions; the frames hold
no variables any more. A receiver that keeps the exception keeps what it refers to.
"""

from __future__ import annotations

from django.dispatch import Signal

queue_changed = Signal()
job_ended = Signal()
