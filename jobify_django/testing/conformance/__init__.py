"""The store contract in executable form. Each test is a sentence about ``jobify_django.stores.base``."""

from __future__ import annotations

from jobify_django.testing.conformance.adding import Adding
from jobify_django.testing.conformance.claiming import Claiming
from jobify_django.testing.conformance.crowding import Crowding
from jobify_django.testing.conformance.ending import Ending
from jobify_django.testing.conformance.leasing import Leasing
from jobify_django.testing.conformance.looking import Looking
from jobify_django.testing.conformance.tuning import Tuning
from jobify_django.testing.conformance.waking import Waking


class StoreConformance(Adding, Claiming, Leasing, Ending, Looking, Tuning, Waking, Crowding):
    """Every promise of a store, as tests that any runner finds. A subclass provides ``make_store``::

        class TestMyStore(StoreConformance):
            def make_store(self, runtime):
                return MyStore("mine", runtime)

    It works as it stands under pytest, and beside ``unittest.TestCase`` (for a store on a Django database,
    ``TransactionTestCase``). Each test needs an empty store. Time is the tests' own: nothing sleeps.
    """
