"""The database store: each verb of the contract is a file of its own, and each vendor's SQL another."""

from __future__ import annotations

from functools import cache

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from jobify_django.conf import get_settings
from jobify_django.runtime import MACHINE, Runtime
from jobify_django.stores.database.add import Adding
from jobify_django.stores.database.cancel import Cancelling
from jobify_django.stores.database.claim import Claiming
from jobify_django.stores.database.prune import Pruning
from jobify_django.stores.database.query import Querying
from jobify_django.stores.database.renew import Renewing
from jobify_django.stores.database.rescue import Rescuing
from jobify_django.stores.database.retry import Retrying
from jobify_django.stores.database.stats import Measuring
from jobify_django.stores.database.tune import Tuning

VENDORS = {
    "sqlite": "jobify_django.stores.database.sqlite.SQLiteStore",
    "postgresql": "jobify_django.stores.database.postgresql.PostgreSQLStore",
    "mysql": "jobify_django.stores.database.mysql.MySQLStore",
}


class DatabaseStore(
    Adding, Claiming, Renewing, Rescuing, Cancelling, Retrying, Pruning, Querying, Measuring, Tuning
):
    """Jobs in the tables of ``jobify_django.models``.

    What is made is a store of its database's vendor, below any subclass's own methods.

    Args:
        alias: the name it goes by in messages.
        runtime: the machine it runs on. On a server the time is the server's, unless this has a clock of its
            own.
        database: the database's key in ``settings.DATABASES``; ``None`` stands for ``JOBIFY["DATABASE"]``.

    Raises ``ImproperlyConfigured`` for a database that jobs cannot wait in.
    """

    def __init__(
        self,
        alias: str = "database",
        runtime: Runtime = MACHINE,
        *,
        database: str | None = None,
    ) -> None:
        self._database = database or get_settings().database
        if wrong := what_is_wrong_with(self._database):
            raise ImproperlyConfigured(" ".join(wrong))
        # Not in __new__: a subclass may name its database only in its own __init__.
        self.__class__ = _on(connections[self._database].vendor, type(self))
        super().__init__(alias, runtime)
        self._set_up()


@cache
def _on(vendor: str, kind: type[DatabaseStore]) -> type[DatabaseStore]:
    """Return a class of stores as it is on a vendor's databases."""
    base = import_string(VENDORS[vendor])
    if kind is DatabaseStore or issubclass(kind, base):
        return base if kind is DatabaseStore else kind
    return type(kind.__name__, (kind, base), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def what_is_wrong_with(alias: str) -> tuple[str, str] | None:
    """Return why jobs cannot wait in the database of this alias, and the way out; ``None`` if they can."""
    vendor = connections[alias].vendor
    if vendor in VENDORS:
        return None
    if vendor == "unknown":  # what Django puts in the place of settings that are not there
        module = getattr(django_settings, "SETTINGS_MODULE", None)
        which = f"The settings of {module}" if module else "The settings"
        return (
            f"{which} have no database {alias!r} for JOBIFY['DATABASE'].",
            "If DATABASES is set in your project, DJANGO_SETTINGS_MODULE names another module here than in "
            "manage.py, as in asgi.py: name the same one. Or use STORE 'memory'.",
        )
    return (
        f"JOBIFY['DATABASE'] {alias!r} is a {vendor} database; jobs wait in {', '.join(VENDORS)}.",
        "Give jobs a database of their own with JOBIFY['DATABASE'], or use STORE 'memory'.",
    )
