"""The tasks of this process, by name: what may be one, and where each is declared."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol, TypeGuard, TypeVar

from jobify_django.conf import did_you_mean, some_of
from jobify_django.exceptions import DuplicateTask, InvalidTask, UnknownTask

LONGEST_NAME = 255

MAIN = frozenset({"__main__", "__mp_main__", "__console__"})
"""Modules that no other process can import: a script, the script in a spawned child, a shell."""


class Declaration(NamedTuple):
    """Where a task is declared.

    Attributes:
        function_module: the module of the function below all decorators that say what they wrap.
        qualname: the function's name in there.
        module: the module in which ``@task`` stands; where that cannot be told, the function's.
        file: its file.
        line: the line there.
        module_code: the code of the module, weakly. Each execution, by an import, a reload or a notebook, has
            a code object of its own, so this tells a reload from a second declaration; ``None`` if the module
            is not being executed.
    """

    function_module: str
    qualname: str
    module: str
    file: str
    line: int
    module_code: weakref.ref[CodeType] | None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def path(self) -> str:
        """The function's dotted path."""
        return f"{self.function_module}.{self.qualname}"

    @property
    def is_importable_only_here(self) -> bool:
        """Whether no other process can import it: it stands in a script, or was typed into a shell."""
        typed = self.file.startswith("<") and not self.file.startswith("<frozen")
        return typed or self.module in MAIN

    @classmethod
    def of(cls, function: Callable[..., Any], frame: FrameType | None = None) -> Declaration:
        """Return where a function is declared; ``frame`` is the one that declares it as a task."""
        inner = inspect.unwrap(function)
        function_module = inner.__module__ or "__main__"  # a shell's namespace may have no name
        declaring = None if frame is None else _declaring(frame, function_module)
        if declaring is None:
            code = inner.__code__
            return cls(
                function_module,
                inner.__qualname__,
                function_module,
                code.co_filename,
                code.co_firstlineno,
                None,
            )
        code = declaring.f_code
        module_code = weakref.ref(code)
        return cls(
            function_module,
            inner.__qualname__,
            _module(declaring),
            code.co_filename,
            declaring.f_lineno,
            module_code,
        )

    def is_of_same_code_as(self, other: Declaration) -> bool:
        """Whether both are one line of one file; then the file is imported under two names, or twice."""
        return (self.file, self.line) == (other.file, other.line)

    def is_twin_of(self, other: Declaration) -> bool:
        """Whether one is a script's, and the other the same line of the script imported as a module."""
        return self.is_importable_only_here != other.is_importable_only_here and self.is_of_same_code_as(
            other
        )

    def renews(self, other: Declaration) -> bool:
        """Whether it is the same function, declared by a new execution of its module: it was reloaded,
        imported again after an error, or a cell of a notebook ran again."""
        if (self.path, self.module) != (other.path, other.module):
            return False
        return (
            self.module_code is None
            or other.module_code is None
            or self.module_code() is not other.module_code()
        )


def _declaring(frame: FrameType, function_module: str) -> FrameType | None:
    """Return the nearest frame that executes a module: ``frame``, or one that has called its function."""
    found: FrameType | None = frame
    while found is not None and not _at_top(found):
        found = found.f_back
    if found is None or found is frame:
        return found
    # The main module of a process is being executed all the time, whatever it has called.
    return None if _module(found) in MAIN and _module(found) != function_module else found


def _at_top(frame: FrameType) -> bool:
    # Not a class either. The flag first: asking a function for its locals copies them.
    return not frame.f_code.co_flags & inspect.CO_OPTIMIZED and frame.f_locals is frame.f_globals


def _module(frame: FrameType) -> str:
    return frame.f_globals.get("__name__") or "__main__"


class Registered(Protocol):
    """A task, as far as pools, checks and commands need it."""

    function: Callable[..., Any]
    name: str
    queue: str
    priority: str | int
    declaration: Declaration

    @property
    def is_async(self) -> bool:
        """Whether its jobs run on the event loop."""


T = TypeVar("T", bound=Registered)


class Registry:
    """The tasks of this process, by name. A worker runs what is in here and nothing else."""

    def __init__(self) -> None:
        self._tasks: dict[str, Registered] = {}

    def register(self, new: T) -> T:
        """Add a task. One that is declared anew, by a reload for example, takes the old one's place.

        Raises ``DuplicateTask`` if another function has its name.
        """
        old = self._tasks.get(new.name)
        if old is None or old.function is new.function or new.declaration.renews(old.declaration):
            self._tasks[new.name] = new
        elif not new.declaration.is_twin_of(old.declaration):
            raise DuplicateTask(_duplicate(new.name, old.declaration, new.declaration))
        elif old.declaration.is_importable_only_here:
            self._tasks[new.name] = new  # the one that other processes have too
        return new

    def __getitem__(self, name: str) -> Registered:
        try:
            return self._tasks[name]
        except KeyError:
            raise UnknownTask(
                f"no task {name!r} is registered in this process{did_you_mean(name, self._tasks)}. Is the "
                "module that declares it imported (a 'tasks' module of an installed app is), and does this "
                f"process run the same code? Its tasks: {some_of(self._tasks)}."
            ) from None

    def get(self, name: str) -> Registered | None:
        """Return the task of this name, if there is one."""
        return self._tasks.get(name)

    def __iter__(self) -> Iterator[Registered]:
        return iter(list(self._tasks.values()))

    def forget(self, name: str) -> None:
        """Remove a task, as tests do with one they declared."""
        self._tasks.pop(name, None)


tasks = Registry()


def _duplicate(name: str, old: Declaration, new: Declaration) -> str:
    if old.module != new.module and old.is_of_same_code_as(new):
        return (
            f"task {name!r} is declared twice by {new}: the file is imported under two names, "
            f"{old.module!r} and {new.module!r}. Import it under one everywhere (the one that INSTALLED_APPS "
            "and sys.path lead to)."
        )
    return (
        f"two tasks are named {name!r}: {old.path} ({old}) and {new.path} ({new}). Rename one, or give it a "
        "name of its own: @task(name=...)."
    )


def name_and_declaration(function: object, name: str | None, frame: FrameType) -> tuple[str, Declaration]:
    """Return the name of a function as a task, and its declaration.

    Args:
        function: what ``@task`` decorates.
        name: its name, if it is given one.
        frame: where ``@task`` stands.

    Raises ``InvalidTask`` for what a worker could not find or run.
    """
    if not _is_function(function):
        raise InvalidTask(f"{function!r} is no plain function; only a 'def' or 'async def' can be a task.")
    declaration = Declaration.of(function, frame)
    _assert_findable(declaration, named=name is not None, at_top=_at_top(frame))
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTask(f"{declaration.path} is a generator; a task returns its result.")
    chosen = declaration.path if name is None else name
    if not chosen or len(chosen) > LONGEST_NAME or not chosen.isprintable():
        raise InvalidTask(f"{chosen!r} is no name for a task: use 1 to {LONGEST_NAME} printable characters.")
    return chosen, declaration


def _is_function(function: object) -> TypeGuard[Callable[..., Any]]:
    """Whether it is a function, or an object that a decorator has put in place of one."""
    if not callable(function) or inspect.isclass(function):
        return False
    try:
        return inspect.isfunction(inspect.unwrap(function))
    except ValueError:  # it wraps itself
        return False


def _assert_findable(declaration: Declaration, *, named: bool, at_top: bool) -> None:
    qualname = declaration.qualname
    if "." not in qualname and "<" not in qualname:
        return
    # What a decorator returns is made inside it. At the top of a module that happens at every import.
    made = "<locals>" in qualname and "<lambda>" not in qualname
    if made and at_top and named:
        return
    if made and at_top:
        raise InvalidTask(
            f"{declaration.path} is what a decorator returned ({declaration}), and nothing says which "
            "function it stands for, so a worker could not find it. Put @functools.wraps(function) on it in "
            "the decorator, or give the task a name: @task(name=...)."
        )
    hint = " If a decorator hides it, put @functools.wraps on what it returns." if made else ""
    raise InvalidTask(
        f"{declaration.path} is not at the top of its module, so a worker could not find it. "
        f"Move it there.{hint}"
    )
