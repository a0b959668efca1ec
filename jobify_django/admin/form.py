"""The form that tunes a queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobify_django.admin.words import ORDER_LABELS, value_label
from jobify_django.conf import MAX_MAXSIZE, MAX_WORKERS, QueueSettings, expected_maxsize, expected_workers
from jobify_django.stores.value import QueueState


def _whole_number(label: Any, most: int, problem: Callable[[object], str]) -> forms.IntegerField:
    """Return a field that refuses what ``Queue.tune`` would refuse."""

    def check(value: int) -> None:
        if wanted := problem(value):
            raise forms.ValidationError(_("It must be %(wanted)s."), params={"wanted": wanted})

    widget = forms.NumberInput(attrs={"min": 1, "max": most})
    return forms.IntegerField(label=label, required=False, widget=widget, validators=[check])


class TuningForm(forms.Form):
    """A queue's three live values; an empty one leaves it to the settings."""

    version = forms.IntegerField(widget=forms.HiddenInput)
    workers = _whole_number(gettext_lazy("Workers per process"), MAX_WORKERS, expected_workers)
    maxsize = _whole_number(gettext_lazy("Maxsize"), MAX_MAXSIZE, expected_maxsize)
    order = forms.ChoiceField(label=gettext_lazy("Order"), required=False)

    def __init__(self, settings: QueueSettings, state: QueueState, data: QueryDict | None = None) -> None:
        initial = {key: getattr(state, key) for key in ("version", "workers", "maxsize", "order")}
        super().__init__(data.copy() if data is not None else None, initial=initial)
        self.state = state
        empty = _("Empty: %(value)s, as in the settings.")
        effects = {
            "workers": _("How many jobs each process runs at once. With fewer, running jobs still finish."),
            "maxsize": _(
                "How many jobs may wait, over all processes. Below the depth nothing is dropped: pushes wait "
                "until there is room."
            ),
            "order": _("Which job starts next. It applies at once, also to the jobs that wait already."),
        }
        for key, effect in effects.items():
            self.fields[key].help_text = effect
        for key in ("workers", "maxsize"):
            self.fields[key].widget.attrs["placeholder"] = getattr(settings, key)
            self.fields[key].help_text += " " + empty % {"value": getattr(settings, key)}
        as_settings = _("as in the settings: %(value)s") % {"value": value_label("order", settings.order)}
        self.fields["order"].choices = [("", as_settings), *ORDER_LABELS.items()]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Refuse values that were chosen looking at others than those in force."""
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("version") != self.state.version:
            self.refuse(self.state.version)
        return cleaned

    def refuse(self, version: int) -> None:
        """Say that the queue has this version by now; the form can be sent again."""
        self.data["version"] = version  # type: ignore[index]
        self.add_error(
            None,
            _(
                "Somebody changed this queue after you opened this page. Its values stand above; "
                "save again to set yours."
            ),
        )

    @property
    def changes(self) -> dict[str, Any]:
        """The values that differ from those in force."""
        wanted = {key: self.cleaned_data[key] for key in ("workers", "maxsize")}
        wanted["order"] = self.cleaned_data["order"] or None
        return {key: value for key, value in wanted.items() if value != getattr(self.state, key)}
