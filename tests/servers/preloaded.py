"""An ``asgi.py`` that has used the store by the time a server forks: it pushes a job when it is imported."""

import os

from tests.servers.asgi import application

__all__ = ["application"]

# After the application, which sets Django up.
from tests.app.tasks import write_line

write_line.push(os.environ["TEST_WRITTEN"], f"pushed by {os.getpid()}")
