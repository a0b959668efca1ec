"""``settings.JOBIFY``: defaults, overrides, and what is said about mistakes."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from jobify_django import UnknownBand, UnknownQueue
from jobify_django.conf import DEFAULTS, QUEUE_KEYS, did_you_mean, get_settings, problems


def said(raw: object) -> str:
    return " ".join(f"{problem.message} {problem.hint}" for problem in problems(raw))


def ids(raw: object) -> list[str]:
    return [problem.id for problem in problems(raw)]


def test_no_setting_at_all_works(settings: Any) -> None:
    del settings.JOBIFY

    queue = get_settings().queue("default")

    assert (queue.store, queue.workers, queue.maxsize, queue.order) == ("database", 10, 1024, "priority")
    assert (queue.push_timeout, queue.lease, queue.max_waiting_pushes) == (10, 30, 1000)


def test_the_defaults_have_no_problem() -> None:
    assert problems(dict(DEFAULTS)) == []


def test_a_queue_overrides_what_holds_for_all(settings: Any) -> None:
    settings.JOBIFY = {
        "WORKERS": 3,
        "PRIORITIES": {"high": 50},
        "QUEUES": {"mail": {"WORKERS": 2, "ORDER": "fifo", "PUSH_TIMEOUT": None}},
    }

    mail, default = get_settings().queue("mail"), get_settings().queue("default")

    assert (mail.workers, mail.order, mail.push_timeout, mail.maxsize) == (2, "fifo", None, 1024)
    assert (default.workers, default.order, default.push_timeout) == (3, "priority", 10)
    assert mail.priority("high") == default.priority("high") == 50


def test_the_default_queue_is_always_there(settings: Any) -> None:
    settings.JOBIFY = {"QUEUES": {"mail": {}}}

    assert set(get_settings().queues) == {"default", "mail"}


def test_settings_are_read_once_until_they_change(settings: Any) -> None:
    first = get_settings()
    assert get_settings() is first

    settings.JOBIFY = {"WORKERS": 3}

    assert get_settings().queue("default").workers == 3


def test_wrong_settings_are_refused_with_all_that_is_wrong(settings: Any) -> None:
    settings.JOBIFY = {"WORKER": 3, "MAXSIZE": 0}

    with pytest.raises(ImproperlyConfigured, match=r"did you mean 'WORKERS'.*MAXSIZE.*from 1 to"):
        get_settings()


@pytest.mark.parametrize("raw", [None, [], "database", 3])
def test_the_setting_must_be_a_dict(raw: object) -> None:
    assert ids(raw) == ["E001"]


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ({"WORKER": 1}, "did you mean 'WORKERS'?"),
        ({"MAX_SIZE": 1}, "did you mean 'MAXSIZE'?"),
        ({"workers": 1}, "did you mean 'WORKERS'?"),
        ({"QUEUES": {"mail": {"MAX_SIZE": 1}}}, "JOBIFY['QUEUES']['mail'] has an unknown key 'MAX_SIZE'"),
        ({"QUEUES": {"mail": {"DATABASE": "other"}}}, "unknown key 'DATABASE'"),
        ({"QQQ": 1}, "Known keys: STORE"),
        ({3: 1}, "unknown key 3"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(raw: object, hint: str) -> None:
    assert ids(raw) == ["E002"]
    assert hint in said(raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("WORKERS", value) for value in (0, -1, 1_001, 1.5, True, "3", None)],
        *[("MAXSIZE", value) for value in (0, -1, 10_000_001, None, False, float("inf"))],
        *[("ORDER", value) for value in ("Fifo", "random", None, 1, ["fifo"])],
        *[("STORE", value) for value in ("databse", "", None, 3)],
        *[("PUSH_TIMEOUT", value) for value in (-1, "10", True, float("nan"), float("inf"))],
        *[("MAX_WAITING_PUSHES", value) for value in (-1, 1.5, None)],
        *[("LEASE", value) for value in (0, 0.5, 10**9, None, float("nan"))],
        *[("GRACE", value) for value in (-1, None, 10**9)],
        *[("RETENTION", value) for value in (-1, None, "7d")],
        *[("FAILED_RETENTION", value) for value in (-1, None)],
        *[("MAX_PAYLOAD", value) for value in (0, 1_023, 10**10, None)],
        *[("DATABASE", value) for value in ("", None, 3)],
        *[("PRIORITIES", value) for value in (None, [], "high")],
        *[("QUEUES", value) for value in (None, [], "mail")],
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: object) -> None:
    assert ids({key: value}) == ["E003"]
    assert repr(value) in said({key: value})
    if key in QUEUE_KEYS:
        assert ids({"QUEUES": {"mail": {key: value}}}) == ["E003"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("WORKERS", 1),
        ("WORKERS", 1_000),
        ("MAXSIZE", 1),
        ("MAXSIZE", 10_000_000),
        ("PUSH_TIMEOUT", None),
        ("PUSH_TIMEOUT", 0),
        ("PUSH_TIMEOUT", 0.25),
        ("MAX_WAITING_PUSHES", 0),
        ("LEASE", 1),
        ("GRACE", 0),
        ("RETENTION", 0),
        ("MAX_PAYLOAD", 1_024),
        ("STORE", "shop.stores.Redis"),
        ("ORDER", "lifo"),
        ("PRIORITIES", {"low": -100, "high": 100}),
    ],
)
def test_a_value_at_the_edge_is_taken(key: str, value: object) -> None:
    assert problems({key: value}) == []


@pytest.mark.parametrize("word", ["databse", "memroy"])
def test_a_misspelt_store_is_guessed(word: str) -> None:
    assert "did you mean" in said({"STORE": word})


@pytest.mark.parametrize("name", ["", "Mail", "a b", "-a", ".a", "ä", "a" * 65, 3, None])
def test_a_queue_needs_a_plain_name(name: object) -> None:
    assert "E004" in ids({"QUEUES": {name: {}}})


@pytest.mark.parametrize("name", ["a", "mail", "mail-2", "a.b_c", "_a", "0", "a" * 64])
def test_a_plain_name_is_taken(name: str) -> None:
    assert problems({"QUEUES": {name: {}}}) == []


@pytest.mark.parametrize("number", [101, -101, 1.0, True, "high", None])
def test_a_band_needs_a_number_in_range(number: object) -> None:
    assert ids({"PRIORITIES": {"high": number}}) == ["E005"]


@pytest.mark.parametrize("band", ["", 3, None])
def test_a_band_needs_a_name(band: object) -> None:
    assert ids({"PRIORITIES": {band: 1}}) == ["E005"]


def test_an_unknown_queue_is_named_with_the_known_ones(settings: Any) -> None:
    settings.JOBIFY = {"QUEUES": {"mail": {}}}

    with pytest.raises(UnknownQueue, match=r"no queue 'mial' \(did you mean 'mail'\?\).*default, mail"):
        get_settings().queue("mial")


def test_an_unknown_band_is_named_with_the_known_ones(settings: Any) -> None:
    settings.JOBIFY = {"PRIORITIES": {"critical": 100}}

    with pytest.raises(UnknownBand, match=r"no priority band 'critcal' \(did you mean 'critical'\?\)"):
        get_settings().queue("default").priority("critcal")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("MAIL", "mail"),
        ("mials", "mail"),
        ("charge", "shop.tasks.charge"),
        ("shop.task.charg", "shop.tasks.charge"),
        ("billing.jobs.charge", "shop.tasks.charge"),
        ("nothing like it", None),
        ("x" * 1_000_000, None),
        (None, None),
    ],
)
def test_a_name_is_guessed_whatever_its_case_and_by_its_last_part(typed: object, meant: str | None) -> None:
    guess = did_you_mean(typed, ["mail", "shop.tasks.charge", "shop.tasks.send"])

    assert guess == (f" (did you mean {meant!r}?)" if meant else "")


def test_a_message_lists_some_of_many_names(settings: Any) -> None:
    many = {f"name{number:03}": 1 for number in range(200)}
    settings.JOBIFY = {"QUEUES": {name: {} for name in many}, "PRIORITIES": many}

    with pytest.raises(UnknownQueue, match=r"\(default, name000, .*, name008 and 191 more\)") as unknown:
        get_settings().queue("nam")
    assert len(str(unknown.value)) < 300
    with pytest.raises(UnknownBand, match=r"\(name000, .*, name009 and 190 more\)"):
        get_settings().queue("default").priority("nam")


def test_without_bands_that_is_said(settings: Any) -> None:
    settings.JOBIFY = {}

    with pytest.raises(UnknownBand, match="none are set"):
        get_settings().queue("default").priority("high")
