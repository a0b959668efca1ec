from django import forms

from jobify_django.ordering import ORDERS

BURSTS = (50, 200, 1000)


class BurstForm(forms.Form):
    """How many customers come at once."""

    checkouts = forms.TypedChoiceField(choices=[(size, size) for size in BURSTS], coerce=int)


class TuneForm(forms.Form):
    """Live values of the queue. What is left out stays as it is."""

    workers = forms.IntegerField(min_value=1, max_value=64, required=False)
    maxsize = forms.IntegerField(min_value=1, max_value=10_000, required=False)
    order = forms.ChoiceField(choices=[(order, order) for order in ORDERS], required=False)

    def changes(self) -> dict[str, int | str]:
        """Return the values that were given."""
        return {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}
