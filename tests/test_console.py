"""What is said to the user: every character as it stands, however long the line."""

from __future__ import annotations

import pytest

from bench.console import say, table


def test_a_line_is_said_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    line = "[bold]reg=[spikepen,weight_decay][/] :smile: 3 of 4 \\[x] " + "long " * 60 + "end"
    say(line)
    say("")
    assert capsys.readouterr().out == f"{line}\n\n"


def test_a_table_in_a_pipe_is_as_wide_as_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "16")
    table("all", ("name", "what"), [("a", "one [b]two[/b]"), ("bb", "three")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == [
        "all",
        "name  what",
        "a     one",
        "      [b]two[/b]",
        "bb    three",
        "",
    ]
    assert max(map(len, lines)) == 16


@pytest.mark.parametrize("columns", ["abc", "0", "-5", ""])
def test_a_width_that_is_none_leaves_room_for_everything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    table("", ("name",), [("long " * 30 + ":dog: [x]",)])
    assert "long " * 30 + ":dog: [x]" in capsys.readouterr().out
