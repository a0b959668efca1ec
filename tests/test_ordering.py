"""Order keys: smaller goes first, equal ones by sequence."""

from hypothesis import given
from hypothesis import strategies as st

from jobify_django.ordering import HIGHEST_PRIORITY, LOWEST_PRIORITY, ORDERS, Order, order_key

PRIORITY = st.integers(LOWEST_PRIORITY, HIGHEST_PRIORITY)
SEQUENCE = st.integers(1, 2**53)


def place(order: Order, priority: int, sequence: int) -> tuple[int, int]:
    return order_key(order, priority, sequence), sequence


@given(PRIORITY, SEQUENCE, PRIORITY, SEQUENCE)
def test_the_higher_priority_goes_first_and_equals_as_they_came(p: int, m: int, q: int, n: int) -> None:
    expected = p > q if p != q else m < n

    assert (place("priority", p, m) < place("priority", q, n)) is expected


@given(PRIORITY, SEQUENCE, PRIORITY, SEQUENCE)
def test_fifo_goes_by_sequence_alone(p: int, m: int, q: int, n: int) -> None:
    assert (place("fifo", p, m) < place("fifo", q, n)) is (m < n)


@given(PRIORITY, SEQUENCE, PRIORITY, SEQUENCE)
def test_lifo_goes_by_sequence_backwards(p: int, m: int, q: int, n: int) -> None:
    assert (place("lifo", p, m) < place("lifo", q, n)) is (m > n)


@given(st.sampled_from(ORDERS), PRIORITY, SEQUENCE)
def test_a_key_fits_a_database_column(order: Order, priority: int, sequence: int) -> None:
    assert -(2**63) <= order_key(order, priority, sequence) < 2**63
