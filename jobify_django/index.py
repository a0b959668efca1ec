"""An index of some rows, and what stands in for it where a database knows of no such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.models import Q


class PartialIndex(models.Index):
    """An index of the rows that fulfil a condition: it stays small, however many others there are.

    MariaDB and MySQL have none. Django would leave the condition out there and index every row under columns
    that do not tell which are meant; this one has columns of its own instead.

    Args:
        fields: its fields, in order.
        only: the condition.
        whole: its fields where every row is in it.
        name: its name, on each database.
    """

    # Not "condition", or Django would warn (models.W037) that MariaDB and MySQL leave it out.
    def __init__(self, *, fields: Sequence[str], only: Q, whole: Sequence[str], name: str) -> None:
        super().__init__(fields=fields, name=name)
        self.only = only
        self.whole = list(whole)

    def create_sql(
        self,
        model: type[models.Model],
        schema_editor: BaseDatabaseSchemaEditor,
        using: str = "",
        **kwargs: Any,
    ) -> Any:
        """Return the statement that makes it on this database."""
        if schema_editor.connection.features.supports_partial_indexes:
            made = models.Index(fields=self.fields, name=self.name, condition=self.only)
        else:
            made = models.Index(fields=self.whole, name=self.name)
        return made.create_sql(model, schema_editor, using, **kwargs)

    def deconstruct(self) -> Any:
        """Return what makes another one like it, for migrations."""
        path, expressions, kwargs = super().deconstruct()
        return path, expressions, {**kwargs, "only": self.only, "whole": self.whole}
