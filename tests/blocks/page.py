"""The pages, their fenced code blocks, and what a block says of itself.

A reader pastes Python into the file that the sentence above the block names, assignments to UPPERCASE names
to the end of ``settings.py``, and all else into ``manage.py shell``. Where a sentence cannot say it, a
comment does, in the line above the fence, which neither GitHub nor Sphinx shows:

``<!-- block: in shop/views.py -->``
    the file, where naming it in the sentence would read badly;
``<!-- block: needs channels -->``
    this module must be installed; elsewhere the block is only compiled;
``<!-- block: only here -->``
    pages that come after this one do without it;
``<!-- block: not run, REASON -->``
    nobody can run it here. First try to make it whole.

And one at the top of a page, ``<!-- after: install.md, x.md -->``: whoever reads it has followed those
pages before. Without it every page comes after ``docs/howto/install.md``, but for those that install the
app themselves."""

from __future__ import annotations

import ast
import builtins
import functools
import re
import symtable
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
INSTALL = DOCS / "howto" / "install.md"
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
    if "_build" not in page.parts
]

FENCE = re.compile(r"^( *)(```+|~~~+)(\S*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"<!-- block: (.+?) -->\s*$")
AFTER = re.compile(r"^<!-- after: (.+?) -->$", re.MULTILINE)
FILE = re.compile(r"`([\w/]+\.(?:py|ini|toml))`")
PLACES = {"settings.py": "mysite", "asgi.py": "mysite", "urls.py": "mysite"}
"""Where files stand that are named without a directory; all others stand in the app ``shop``."""

GIVEN = {"INSTALLED_APPS", "MIDDLEWARE", "DATABASES", "BASE_DIR", "JOBIFY"}
"""Names that a settings file has before anything is added to it."""


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: the page's path from the root of the checkout.
        line: the line of the opening fence.
        language: the first word after the fence.
        text: the code, without the indentation of the fence.
        paragraph: the paragraph above it, in one line.
        note: what the comment above it says.
    """

    page: str
    line: int
    language: str
    text: str
    paragraph: str
    note: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str:
        """The file it is pasted into, from the project's directory; nothing if no file is named."""
        noted = re.fullmatch(r"in (\S+)", self.note)
        named = FILE.findall(self.paragraph) if self.paragraph.endswith(":") else []
        name: str = noted[1] if noted else named[-1] if named else ""
        if self.language not in ("python", "ini", "toml") or not name:
            return ""
        return name if "/" in name or not name.endswith(".py") else f"{PLACES.get(name, 'shop')}/{name}"

    @property
    def is_settings(self) -> bool:
        """Whether it does nothing but set UPPERCASE names."""
        statements = ast.parse(self.text).body
        return bool(statements) and all(isinstance(one, _Set) and _names_settings(one) for one in statements)

    @property
    def is_script(self) -> bool:
        """Whether it is a program of its own."""
        return "settings.configure(" in self.text

    @property
    def has_tests(self) -> bool:
        """Whether pytest finds something in it."""
        return bool(re.search(r"^ *(async )?def test_|@pytest.fixture", self.text, re.MULTILINE))

    @property
    def has_tasks(self) -> bool:
        """Whether it declares tasks, which only a module of an app can."""
        return bool(re.search(r"^@task\b", self.text, re.MULTILINE))

    @property
    def missing(self) -> list[str]:
        """The names it uses, and neither imports nor defines."""
        table = symtable.symtable(self.text, str(self), "exec")
        known = {*dir(builtins), "__name__", "__file__", *(GIVEN if self.is_settings else ())}
        known |= {one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported()}
        known |= {child.get_name() for child in table.get_children()}
        return sorted(set(_globals_of(table)) - known)

    @property
    def defined(self) -> set[str]:
        """The functions and classes it defines."""
        if self.language != "python":
            return set()
        return {
            one.name
            for one in ast.parse(self.text).body
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }

    @property
    def commands(self) -> list[Command]:
        """What is typed in a console, and what is shown below it."""
        return [
            Command(re.sub(r"  +# .*", "", typed).strip(), tuple(shown))
            for typed, shown in examples(self.text, "$ ")
        ]


class Command(NamedTuple):
    """A command and the lines that the page shows below it."""

    typed: str
    shown: tuple[str, ...]


_Set = ast.Assign | ast.AugAssign | ast.AnnAssign


def _names_settings(statement: ast.stmt) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]  # type: ignore[attr-defined]
    roots = [target.value if isinstance(target, ast.Subscript) else target for target in targets]
    while any(isinstance(root, ast.Subscript) for root in roots):
        roots = [root.value if isinstance(root, ast.Subscript) else root for root in roots]
    return all(isinstance(root, ast.Name) and root.id.isupper() for root in roots)


def _globals_of(table: symtable.SymbolTable) -> Iterator[str]:
    top = table.get_type() == "module"
    for one in table.get_symbols():
        if one.is_referenced() and (one.is_global() or (top and not one.is_local())):
            yield one.get_name()
    for child in table.get_children():
        yield from _globals_of(child)


def relative(page: Path) -> str:
    """Return a page's path from the root of the checkout."""
    return str(page.relative_to(ROOT))


@functools.cache
def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in order."""
    text = page.read_text()
    found, end = [], 0
    for fence in FENCE.finditer(text):
        above = text[end : fence.start()].rstrip()
        note = NOTE.search(above)
        paragraph = " ".join(NOTE.sub("", above).rstrip().split("\n\n")[-1].split())
        code = textwrap.dedent(fence[4])
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(relative(page), line, fence[3], code, paragraph, note[1] if note else ""))
        end = fence.end()
    return found


def followed_before(page: Path) -> list[Path]:
    """Return the pages whose files and settings the reader of this one has already made, in order."""
    if any('INSTALLED_APPS += ["jobify_django' in block.text for block in blocks(page)):
        return []
    said = AFTER.search(page.read_text())
    names = said[1].split(", ") if said else []
    pages = [INSTALL]
    for one in ((page.parent / name).resolve() for name in names):
        pages += [before for before in (*followed_before(one), one) if before not in pages]
    return pages


def examples(text: str, prompt: str) -> Iterator[tuple[str, list[str]]]:
    """Yield what is typed after each prompt, and the lines shown below it."""
    for part in re.split(rf"^{re.escape(prompt)}", text, flags=re.MULTILINE)[1:]:
        typed, *shown = part.splitlines()
        if prompt == ">>> ":
            while shown and re.match(r"\.\.\.( |$)", shown[0]):
                typed += "\n" + shown.pop(0)[4:]
        yield typed, shown
