"""The migrations of a release after this one, for tests: this one's, and one of each kind that may follow.

As ``MIGRATION_MODULES["jobify_django"]`` they take the place of this release's.
"""

from jobify_django import migrations

__path__.extend(migrations.__path__)
