"""How known bugs are planted: what a mutant may look for, and what is said of one that does not fit."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.simulation.planting import PACKAGE, Misfit, Mutant, misfits, plant

SHOP = '''
"""A shop. Its shelves: UPDATE shelf SET items = ?"""

FULL = """
    UPDATE shelf SET full = TRUE
    WHERE (id, place) IN (VALUES %s)
      AND items_left = 0"""


class Shelf:
    items: list[str] = []

    @property
    def room(self):
        return self.size - len(self.items)

    def add(self, item, *, front=False):
        # There must be room.
        if (self.room
                > 0):
            self.tell("added", item, at=self.place)
            self.items.append(item)  # at the end
            self.items.sort()
        return self.room > 0

    def tell(self, *news, **more):
        self.news.append(f"{news[0]}: it was {news[1]}")
'''


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A house whose package has one module, ``shop.shelf``."""
    file = tmp_path / PACKAGE / "shop" / "shelf.py"
    file.parent.mkdir(parents=True)
    file.write_text(SHOP)
    return tmp_path


def changed(house: Path, place: str, old: str, new: str, *, sql: bool = False) -> tuple[str, str]:
    """Plant a mutant, and return the lines that it took away and those that it put there."""
    file = house / PACKAGE / "shop" / "shelf.py"
    before = ast.unparse(ast.parse(file.read_text())).splitlines()
    plant(Mutant("a bug", place, old, new, sql), house)
    after = file.read_text().splitlines()
    return (
        "\n".join(line.strip() for line in before if line not in after),
        "\n".join(line.strip() for line in after if line not in before),
    )


def misfit(house: Path, place: str, old: str, new: str = "pass", *, sql: bool = False) -> str:
    """Return what is said of a mutant that does not fit."""
    (said,) = misfits([Mutant("a bug", place, old, new, sql)], house)
    return said


def test_an_expression_is_replaced_in_its_place_alone(house: Path) -> None:
    gone, new = changed(house, "shop.shelf.Shelf.room", "len(self.items)", "0")

    assert (gone, new) == ("return self.size - len(self.items)", "return self.size - 0")


def test_what_is_put_into_another_expression_stays_one_operand(house: Path) -> None:
    _, new = changed(house, "shop.shelf.Shelf.room", "len(self.items)", "self.size - self.size")

    assert new == "return self.size - (self.size - self.size)"


def test_statements_are_replaced_whatever_their_comments(house: Path) -> None:
    old = "self.items.append(item); self.items.sort()"

    gone, new = changed(house, "shop.shelf.Shelf.add", old, "self.items.append('')")

    assert gone == "self.items.append(item)\nself.items.sort()"
    assert new == "self.items.append('')"


def test_a_statement_with_a_body_is_written_on_one_line(house: Path) -> None:
    plant(Mutant("none", "shop.shelf.Shelf.add", "self.tell(...)", "pass"), house)
    old = "if self.room > 0: pass; self.items.append(item); self.items.sort()"

    _, new = changed(house, "shop.shelf.Shelf.add", old, "return")

    assert new == "return"


def test_three_dots_stand_for_all_else_that_is_passed_and_pass_it_on(house: Path) -> None:
    _, new = changed(house, "shop.shelf.Shelf.add", 'self.tell("added", ...)', 'self.tell("sold", ...)')

    assert new == "self.tell('sold', item, at=self.place)"


def test_three_dots_leave_what_is_named_to_be_the_same(house: Path) -> None:
    said = misfit(house, "shop.shelf.Shelf.add", 'self.tell("added", ..., at=self.room)')

    assert "has no" in said


def test_a_piece_of_sql_is_found_whatever_its_white_space(house: Path) -> None:
    old = "WHERE (id,place) IN (VALUES %s) AND items_left = 0"

    gone, new = changed(house, "shop.shelf.FULL", old, "WHERE 1 = 1", sql=True)

    assert "items_left" in gone
    assert new == r"FULL = '\n    UPDATE shelf SET full = TRUE\n    WHERE 1 = 1'"


def test_a_piece_of_sql_does_not_end_in_the_middle_of_a_word(house: Path) -> None:
    assert "has no" in misfit(house, "shop.shelf.FULL", "AND items", sql=True)


def test_a_docstring_is_no_sql(house: Path) -> None:
    (house / PACKAGE / "shop" / "shelf.py").write_text(f'def sell():\n    "UPDATE shelf"\n{SHOP}')

    assert "has no" in misfit(house, "shop.shelf.sell", "UPDATE shelf", sql=True)


def test_code_that_is_in_its_place_twice_is_told_with_its_lines(house: Path) -> None:
    said = misfit(house, "shop.shelf.Shelf.add", "self.room > 0", "True")

    assert said == "a bug: shop.shelf.Shelf.add has `self.room > 0` 2 times, in lines 19, 24"


def test_sql_that_is_in_its_place_twice_is_told_with_its_lines(house: Path) -> None:
    said = misfit(house, "shop.shelf.FULL", "=", "<>", sql=True)

    assert said == "a bug: shop.shelf.FULL has `=` 2 times, in lines 4, 4"


def test_a_call_with_other_arguments_is_another_piece(house: Path) -> None:
    assert "has no `self.items.append()`" in misfit(house, "shop.shelf.Shelf.add", "self.items.append()")


def test_code_that_is_not_in_its_place_is_told_with_the_nearest(house: Path) -> None:
    said = misfit(house, "shop.shelf.Shelf.add", "self.items.append(thing)")

    assert said == (
        "a bug: shop.shelf.Shelf.add has no `self.items.append(thing)`; "
        "nearest, in line 22: `self.items.append(item)`"
    )


def test_sql_that_is_not_in_its_place_is_told_with_the_nearest(house: Path) -> None:
    said = misfit(house, "shop.shelf.FULL", "(id, places) IN (VALUES %s)", sql=True)

    assert said == (
        "a bug: shop.shelf.FULL has no `(id, places) IN (VALUES %s)`; "
        "nearest, in line 4: `(id, place) IN (VALUES %s)`"
    )


def test_a_place_that_is_not_there_is_told_with_the_nearest(house: Path) -> None:
    said = misfit(house, "shop.shelf.Shelf.adds", "self.room")

    assert said == "a bug: there is no shop.shelf.Shelf.adds; nearest: shop.shelf.Shelf.add"


def test_a_place_that_has_moved_to_another_module_is_told_with_that(house: Path) -> None:
    other = house / PACKAGE / "warehouse" / "rack.py"
    other.parent.mkdir()
    other.write_text("class Shelves:\n    def add(self): pass\n")

    said = misfit(house, "warehouse.racks.Shelf.add", "self.room")

    assert said == "a bug: no module holds warehouse.racks.Shelf.add; nearest: shop.shelf.Shelf.add"


def test_a_bug_with_a_name_that_its_module_does_not_know_would_only_crash(house: Path) -> None:
    said = misfit(house, "shop.shelf.Shelf.room", "self.size", "self.width")

    assert said == "a bug: nothing in the module of shop.shelf.Shelf.room is called width"


def test_a_piece_that_is_no_python_is_told(house: Path) -> None:
    said = misfit(house, "shop.shelf.Shelf.room", "self.size -", "0")

    assert said == "a bug: `self.size -` is no Python: invalid syntax"


def test_what_does_not_fit_is_not_planted(house: Path) -> None:
    with pytest.raises(Misfit):
        plant(Mutant("a bug", "shop.shelf.Shelf.add", "self.room > 0", "True"), house)

    assert (house / PACKAGE / "shop" / "shelf.py").read_text() == SHOP
