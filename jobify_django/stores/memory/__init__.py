"""Jobs in this process's memory: fast, exact, and gone with the process."""

from jobify_django.stores.memory.store import MemoryStore

__all__ = ["MemoryStore"]
