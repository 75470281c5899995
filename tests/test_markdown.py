"""Tables for GitHub, as they must look."""

from __future__ import annotations

import pytest

from bench.markdown import table


@pytest.mark.parametrize(
    ("align", "rule"),
    [("l", "|---|---|---|"), ("lr", "|---|--:|--:|"), ("llr", "|---|---|--:|"), ("rl", "|--:|---|---|")],
)
def test_a_table_is_aligned_and_its_bars_are_escaped(align: str, rule: str) -> None:
    assert table(("a", "b", "c"), [("1", "x|y", ""), ("2", "", "z")], align) == (
        f"| a | b | c |\n{rule}\n| 1 | x\\|y |  |\n| 2 |  | z |"
    )


def test_a_table_may_have_no_rows_and_is_left_aligned() -> None:
    assert table(("a", "b"), []) == "| a | b |\n|---|---|"
