"""Times and names, as the admin's pages write them."""

import pytest

from jobify_django.templatetags.jobify import breakable, duration, stamp


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (-1, "0 ms"),
        (0.08, "80 ms"),
        (0.9996, "1.0 s"),
        (1.96, "2.0 s"),
        (9.96, "10 s"),
        (130, "2 min 10 s"),
        (3_900, "1 h 5 min"),
        (4 * 3600 + 3 * 86_400, "3 d 4 h"),
    ],
)
def test_a_duration_has_two_parts_at_most(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_a_time_is_written_to_the_second() -> None:
    assert stamp(1_700_000_000.25) == (
        '<time datetime="2023-11-14T22:13:20.250+00:00">Nov. 14, 2023 22:13:20</time>'
    )
    assert stamp(None) == stamp(1e300) == "–"


def test_a_name_breaks_after_its_dots_and_is_escaped() -> None:
    assert breakable("shop.tasks.<b>") == "shop.<wbr>tasks.<wbr>&lt;b&gt;"
