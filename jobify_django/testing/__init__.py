"""For who writes a store: the contract in executable form, and a clock to own.

Who writes tasks runs them in a test with ``jobify_django.pool.serving``.
"""

from jobify_django.testing.clock import FakeClock
from jobify_django.testing.conformance import StoreConformance

__all__ = ["FakeClock", "StoreConformance"]
