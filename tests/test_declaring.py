"""A task stays a function: decorators, equal names, reloads, shells, and what is asked of a function."""

import copy
import functools
import importlib.util
import inspect
import pickle
import runpy
import sys
import textwrap
import threading
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.test import override_settings

from jobify_django import DuplicateTask, InvalidTask, JobifyError, task
from jobify_django.checks import check_settings
from jobify_django.registry import tasks
from tests.workshop import only_these_tasks

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def _memory(settings: Any) -> None:
    settings.JOBIFY = {"STORE": "memory", "QUEUES": {"mail": {}}}


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    with only_these_tasks(*tasks):
        yield


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules that tests import, and forget them afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write_files(**modules: str) -> None:
        for name, text in modules.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text("from jobify_django import task\n" + textwrap.dedent(text))
        importlib.invalidate_caches()

    yield write_files
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


DECORATOR = """
import functools

def log(function):
    @functools.wraps(function)
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner

def bare(function):
    def inner(*args, **kwargs):
        return function(*args, **kwargs)
    return inner
"""

SENDER = """
from {decorators} import log, bare

@task(name="send")
@{decorator}
def send_{number}(to: str) -> int:
    return {number}
"""


# Names


def test_a_wrapped_function_keeps_its_own_name(write: Write) -> None:
    write(deco=DECORATOR, shop="from deco import log\n@task\n@log\ndef send(to): ...")

    assert importlib.import_module("shop").send.name == "shop.send"


@pytest.mark.parametrize("decorator", ["log", "bare"])
def test_two_modules_cannot_share_a_name_behind_one_decorator(write: Write, decorator: str) -> None:
    one, two = (SENDER.format(decorators="deco", decorator=decorator, number=n) for n in (1, 2))
    write(deco=DECORATOR, shop=one, blog=two)
    importlib.import_module("shop")

    with pytest.raises(DuplicateTask, match=r"shop\.py:\d+\) and .*blog\.py:\d+\)") as caught:
        importlib.import_module("blog")

    assert "deco.py" not in str(caught.value)
    assert tasks["send"](to="a") == 1


def test_two_modules_cannot_share_the_name_of_a_function_that_both_wrap(write: Write) -> None:
    wrapping = "from deco import log\nfrom lib import send\nmine = task(log(send))"
    write(deco=DECORATOR, lib="def send(): ...", shop=wrapping, blog=wrapping)
    importlib.import_module("shop")

    with pytest.raises(DuplicateTask, match=r"shop\.py:4.*blog\.py:4"):
        importlib.import_module("blog")


@pytest.mark.parametrize("decorator", ["", "@log", "@bare"])
def test_one_module_cannot_use_a_name_twice(write: Write, decorator: str) -> None:
    given = "name='send'" if decorator == "@bare" else ""
    text = f"from deco import log, bare\n@task({given})\n{decorator}\ndef send(): ...\n"
    write(deco=DECORATOR, shop=text + text.partition("\n")[2])

    with pytest.raises(DuplicateTask, match=r"shop\.py:3\) and .*shop\.py:6\)\. Rename one"):
        importlib.import_module("shop")


def test_a_name_that_is_taken_is_taken_for_another_function_of_the_module_too(write: Write) -> None:
    write(shop="@task(name='x')\ndef one(): ...\n@task(name='x')\ndef two(): ...")

    with pytest.raises(
        DuplicateTask, match=r"'x': shop\.one \(.*shop\.py:2\) and shop\.two \(.*shop\.py:4\)"
    ):
        importlib.import_module("shop")


def test_a_script_cannot_use_a_name_twice_and_can_be_run_again(write: Write, tmp_path: Path) -> None:
    text = "@task\ndef send(): ...\n"
    write(once=text, twice=text + text)

    for _ in range(2):
        runpy.run_path(str(tmp_path / "once.py"), run_name="__main__")
    tasks.forget("__main__.send")
    with pytest.raises(DuplicateTask, match=r"twice\.py:2\) and .*twice\.py:4\)"):
        runpy.run_path(str(tmp_path / "twice.py"), run_name="__main__")


HELPER = """
def mail(function):
    return task(queue="mail")(function)
"""


def test_a_function_may_declare_tasks_for_others(write: Write) -> None:
    text = "from helper import mail\n@mail\ndef send(): ...\n"
    write(helper=HELPER, shop=text)
    module = importlib.import_module("shop")
    assert (module.send.name, module.send.declaration.module) == ("shop.send", "shop")
    assert str(module.send.declaration).endswith("shop.py:3")

    importlib.reload(module)
    write(shop=text + text)
    with pytest.raises(DuplicateTask, match=r"shop\.py:3\) and .*shop\.py:6\)"):
        importlib.reload(module)


def test_two_modules_cannot_share_a_name_behind_one_helper(write: Write) -> None:
    wrapping = "from deco import log\nfrom lib import send\nfrom helper import mail\nmine = mail(log(send))"
    write(deco=DECORATOR, helper=HELPER, lib="def send(): ...", shop=wrapping, blog=wrapping)
    importlib.import_module("shop")

    with pytest.raises(DuplicateTask, match=r"shop\.py:5.*blog\.py:5"):
        importlib.import_module("blog")


def test_a_running_program_may_declare_a_task_again(write: Write) -> None:
    def declare() -> Any:
        return task(name="again")(wrapped(plain))

    first = declare()

    assert first.declaration.module == __name__
    assert declare() is tasks["again"]


def test_a_file_that_is_imported_under_two_names_is_told_so(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shop="@task(name='send')\ndef send(): ...")
    file = importlib.import_module("shop").__file__
    spec = importlib.util.spec_from_file_location("outer.shop", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "outer.shop", module)

    with pytest.raises(DuplicateTask, match=r"imported under two names, 'shop' and 'outer\.shop'"):
        spec.loader.exec_module(module)


def test_a_script_and_the_module_of_the_same_file_share_their_tasks(write: Write) -> None:
    write(shop="@task(name='send')\ndef send(): ...\n")
    imported = importlib.import_module("shop").send

    again = runpy.run_path(imported.declaration.file, run_name="__main__")["send"]

    assert again is not imported
    assert tasks["send"] is imported  # other processes have this one

    tasks.forget("send")
    tasks.register(again)
    tasks.register(imported)
    assert tasks["send"] is imported


def test_the_same_function_may_be_declared_again() -> None:
    first = task(name="again")(plain)

    assert tasks.register(first) is first
    newer = task(name="again")(plain)
    assert tasks["again"] is newer


def plain() -> None: ...


# Reload


@pytest.mark.parametrize("decorator", ["", "@log", "@bare"])
def test_a_module_can_be_reloaded_after_an_edit(write: Write, decorator: str) -> None:
    given = "(name='reloaded')" if decorator == "@bare" else ""
    text = f"from deco import log, bare\n@task{given}\n{decorator}\ndef send(): return 1\n"
    write(deco=DECORATOR, shop=text)
    module = importlib.import_module("shop")
    old = module.send

    write(shop="# moved\n\n" + text.replace("return 1", "return 'longer'"))
    importlib.reload(module)

    assert tasks[old.name] is module.send
    assert (old(), module.send()) == (1, "longer")
    assert old.push().task == module.send.push().task == old.name


def test_a_reload_with_a_name_twice_in_it_is_refused_as_an_import_is(write: Write) -> None:
    text = "@task\ndef send(): return 1\n"
    write(shop=text)
    module = importlib.import_module("shop")

    write(shop=text + text)

    with pytest.raises(DuplicateTask):
        importlib.reload(module)


def test_a_module_whose_import_failed_can_be_imported_again(write: Write) -> None:
    write(shop="@task\ndef send(): ...\nraise ImportError('not yet')")
    with pytest.raises(ImportError, match="not yet"):
        importlib.import_module("shop")

    write(shop="@task\ndef send(): ...\n# and more\n")

    send = importlib.import_module("shop").send
    assert tasks["shop.send"] is send


def test_a_reload_keeps_no_old_module_alive(write: Write) -> None:
    write(shop="@task\ndef send(): ...")
    gone = weakref.ref(importlib.import_module("shop"))

    del sys.modules["shop"]
    importlib.import_module("shop")

    assert gone() is None


@pytest.mark.parametrize("file", ["<stdin>", "<ipython-input-3-0c2f>", "/tmp/ipykernel_7/81.py"])
@pytest.mark.parametrize("space", [{"__name__": "__main__"}, {}])
def test_a_cell_of_a_shell_or_notebook_can_be_run_again(file: str, space: dict[str, Any]) -> None:
    space = {"task": task, **space}
    for answer in (1, 2):
        exec(compile(f"@task\ndef answer(): return {answer}", file, "exec"), space)

    assert tasks["__main__.answer"] is space["answer"]
    assert space["answer"]() == 2


def test_what_is_typed_into_an_imported_module_can_be_typed_again(write: Write) -> None:
    write(shop="@task\ndef send(): ...")
    space = vars(importlib.import_module("shop"))

    exec(compile("@task\ndef send(): return 2", "<console>", "exec"), space)

    assert tasks["shop.send"]() == 2


# Decorators below


def test_what_a_decorator_returns_without_wraps_is_refused_with_the_remedy(write: Write) -> None:
    write(deco=DECORATOR, shop="from deco import bare\n@task\n@bare\ndef send(): ...")

    with pytest.raises(InvalidTask, match=r"deco.bare.<locals>.inner .*shop\.py:3.*functools\.wraps.*name="):
        importlib.import_module("shop")


def test_a_name_makes_a_task_of_what_a_decorator_returns(write: Write) -> None:
    write(deco=DECORATOR, shop=SENDER.format(decorators="deco", decorator="bare", number=5))

    sent = importlib.import_module("shop").send_5

    assert tasks["send"] is sent
    assert (sent("a"), sent.declaration.module) == (5, "shop")
    assert str(sent.declaration).endswith("shop.py:5")


@pytest.mark.parametrize(
    "text",
    [
        "def outer():\n    @task(name='x')\n    def inner(): ...\nouter()",
        "class Shop:\n    @task(name='x')\n    def charge(self): ...",
        "class Shop:\n    @task(name='x')\n    @staticmethod\n    def charge(): ...",
        "x = task(name='x')(lambda: None)",
    ],
)
def test_a_name_makes_no_task_of_what_is_nested(write: Write, text: str) -> None:
    write(shop=text)

    with pytest.raises(InvalidTask, match=r"not at the top of its module.*Move it there"):
        importlib.import_module("shop")


def test_a_task_is_no_function_to_declare() -> None:
    declared = task(name="once")(plain)

    with pytest.raises(InvalidTask, match="is a task already; using"):
        task(name="twice")(declared)


def test_an_object_that_a_decorator_put_in_place_of_a_function_is_one() -> None:
    cached = task(name="cached")(functools.lru_cache(plain))
    threaded = task(name="threaded")(sync_to_async(plain))

    assert (cached.is_async, threaded.is_async) == (False, True)
    assert cached() is None


def test_a_check_names_the_file_of_the_task_and_not_of_its_decorator(write: Write) -> None:
    write(deco=DECORATOR, shop="from deco import log\n@task(queue='nowhere')\n@log\ndef send(): ...")
    importlib.import_module("shop")

    with override_settings(JOBIFY={"STORE": "memory"}):
        (said,) = [m.msg for m in check_settings(None) if "Task shop.send" in m.msg]

    assert "shop.py:3)" in said
    assert "deco.py" not in said


# As a function


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@task
@wrapped
def charge(order: int, *, twice: bool = False) -> int:
    """Charge an order."""
    return order * (2 if twice else 1)


@task
async def acharge(order: int) -> int:
    return order


@task
def forward(order: "Undefined") -> None:  # type: ignore[name-defined]  # noqa: F821
    ...


def test_a_task_shows_the_function_it_stands_for() -> None:
    inner = inspect.unwrap(charge)

    assert isinstance(inner, types.FunctionType)
    assert inspect.getsource(charge).startswith("@task\n@wrapped\ndef charge")
    assert (charge.__module__, charge.__name__, charge.__qualname__) == (__name__, "charge", "charge")
    assert charge.__doc__ == "Charge an order."
    assert inspect.signature(charge) == inspect.signature(inner)
    assert typing.get_type_hints(charge) == {"order": int, "twice": bool, "return": int}
    assert "A registered function" in str(inspect.getdoc(type(charge)))
    assert "function" in inspect.signature(type(charge)).parameters


def test_a_task_says_what_it_is() -> None:
    path = f"{__name__}.charge"

    assert repr(charge) == f"<Task {path}>"
    assert repr(charge.using(queue="mail", delay=3)) == f"<Task {path} queue='mail' delay_seconds=3.0>"
    assert repr(acharge) == f"<AsyncTask {__name__}.acharge>"


def test_a_task_equals_itself_alone() -> None:
    assert charge != charge.using()
    assert len({charge, charge, charge.using()}) == 2


def test_a_task_is_pickled_and_copied_as_its_function_is() -> None:
    charge.push(1)

    assert pickle.loads(pickle.dumps(charge)) is charge
    assert copy.deepcopy([charge]) == [copy.copy(charge)] == [charge]


def test_a_decorator_above_a_task_takes_nothing_else_along() -> None:
    above = wrapped(charge)

    assert above(3, twice=True) == 6
    assert above.__wrapped__ is charge  # type: ignore[attr-defined]
    assert not {"queue", "function", "name", "push", "timeout"} & vars(above).keys()
    assert inspect.unwrap(above) is inspect.unwrap(charge)
    assert inspect.signature(above) == inspect.signature(charge)


def test_sync_code_can_call_an_async_task() -> None:
    assert async_to_sync(acharge)(4) == 4
    assert not iscoroutinefunction(wrapped(acharge))


def test_a_task_runs_in_a_thread() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(charge(2)))
    thread.start()
    thread.join()

    assert found == [2]


def test_annotations_that_cannot_be_resolved_are_left_alone() -> None:
    assert forward.push(1).args == [1]


# Other queues' methods


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("delay", r"using\(delay=seconds\)\.push\(\.\.\.\) delays it"),
        ("delay_on_commit", "at its commit"),
        ("apply_async", r"using\("),
        ("enqueue", r"push\(\.\.\.\) adds the job"),
        ("aenqueue", r"await apush\(\.\.\.\)"),
        ("send", r"push\(\.\.\.\) adds the job"),
    ],
)
def test_another_queues_method_is_answered_with_the_one_to_use(name: str, way: str) -> None:
    with pytest.raises(AttributeError, match=rf"a task has no \.{name}\(\): .*{way}") as caught:
        getattr(charge, name)(1)

    assert isinstance(caught.value, InvalidTask)
    assert isinstance(caught.value, JobifyError)
    assert not hasattr(charge, name)
    assert not hasattr(acharge.using(queue="mail"), name)


def test_an_unknown_attribute_is_pythons_own_matter() -> None:
    with pytest.raises(AttributeError, match="'Task' object has no attribute 'psuh'") as caught:
        charge.psuh  # noqa: B018

    assert not isinstance(caught.value, JobifyError)
