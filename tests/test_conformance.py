"""Every store keeps the one contract."""

import pytest
from django.db import connection

from jobify_django.runtime import Runtime
from jobify_django.stores.base import Store
from jobify_django.stores.database import DatabaseStore
from jobify_django.stores.memory import MemoryStore
from jobify_django.testing import StoreConformance
from tests.test_watermark import be_patient, by_the_watermark


class TestMemoryStore(StoreConformance):
    def make_store(self, runtime: Runtime) -> Store:
        return MemoryStore("memory", runtime)


@pytest.mark.django_db(transaction=True)
class TestDatabaseStore(StoreConformance):
    def make_store(self, runtime: Runtime) -> Store:
        return DatabaseStore("database", runtime)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "postgresql", reason="about PostgreSQL")
class TestDatabaseStoreByTheWatermark(StoreConformance):
    @pytest.fixture(autouse=True)
    def _patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        be_patient(monkeypatch)

    def make_store(self, runtime: Runtime) -> Store:
        return by_the_watermark("database", runtime)
