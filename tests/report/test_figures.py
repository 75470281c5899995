"""What all figures share: the ranges of their axes, looks, and the hash of what is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.report.analysis import analyse
from bench.report.collect import gather
from bench.report.figures import colour_of, figures, style
from bench.report.figures.drawn import Drawn
from bench.report.figures.limits import ACCURACY, COST, CURVE, GAP, Margin, limits
from bench.report.figures.look import Look, looks
from bench.report.figures.maps import layer_names
from bench.report.figures.readings import Bar
from bench.report.groups import groups
from bench.report.tables import Line, Table


@pytest.mark.parametrize(
    ("margin", "values", "ends"),
    [
        # 0.37 of a span of 20.
        (ACCURACY, [70, 50, 60], (42.6, 77.4)),
        # 3.7, but percent end at 100.
        (ACCURACY, [90, 100], (86.3, 100)),
        # -2.7, but no accuracy is below 0.
        (ACCURACY, [1, 11], (0, 14.7)),
        # More than 100 is no percent.
        (ACCURACY, [100, 120], (92.6, 127.4)),
        # The smallest room.
        (ACCURACY, [80, 81], (79.5, 81.5)),
        (ACCURACY, [80], (79.5, 80.5)),
        # 0.12 of 25; 0.12 of 2 is less than the smallest room.
        (GAP, [50, 75], (47, 78)),
        (GAP, [98, 96], (95.5, 98.5)),
        (GAP, [75, 100], (72, 100)),
        # 0.012; 0.03, but no cost is negative.
        (COST, [0.1, 0.2], (0.088, 0.212)),
        (COST, [0.01, 0.26], (0, 0.29)),
        # A tenth of the one value; 0 has no tenth.
        (COST, [0.5, 0.5], (0.45, 0.55)),
        (COST, [0.0], (0, 0.01)),
        # 0.2; a twentieth; 0 has none.
        (CURVE, [1, 3.5, 2], (0.8, 3.7)),
        (CURVE, [-2, -2], (-2.1, -1.9)),
        (CURVE, [0.0], (-0.1, 0.1)),
    ],
)
def test_an_axis_shows_its_values_with_room(margin: Margin, values: Sequence[float], ends: tuple[float, float]) -> None:
    assert limits(values, margin) == pytest.approx(ends, abs=1e-12)


def test_a_logarithmic_axis_has_room_by_a_factor() -> None:
    assert limits([0.02, 0.1, 0.05], COST, logarithmic=True) == pytest.approx((0.016, 0.125))


METHODS = (
    "none", "weight_decay", "spikepen", "weightnorm", "dropout", "dropout2d", "feature_dropout", "alpha_dropout",
    "uselose", "spikepen+uselose", "weightnorm+weight_decay",
)  # fmt: skip


def _linear(colour: str) -> list[float]:
    """Red, green and blue as light (IEC 61966-2-1)."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def _contrast(one: str, other: str) -> float:
    """Contrast ratio (WCAG 2.1)."""
    dark, light = sorted(0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (_linear(one), _linear(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("paper", ["#ffffff", "#14181f", "#1b2029"])
@pytest.mark.parametrize("method", [*METHODS, "a_foreign_one"])
def test_a_methods_colour_is_seen_on_light_and_dark_paper(method: str, paper: str) -> None:
    assert _contrast(colour_of(method), paper) >= 3


def test_no_two_methods_share_a_colour_and_only_none_is_grey() -> None:
    drawn = {method: colour_of(method) for method in METHODS}
    assert len(set(drawn.values())) == len(METHODS)
    spread = {method: max(_linear(colour)) - min(_linear(colour)) for method, colour in drawn.items()}
    assert spread["none"] < 0.1
    assert min(value for method, value in spread.items() if method != "none") > 0.2


def test_a_pair_of_methods_has_one_colour_in_either_order() -> None:
    assert colour_of("spikepen+uselose") == colour_of("uselose+spikepen") != colour_of("spikepen")


def _line(series: str, reg: str, panel: str = "", model: str = "cnn") -> Line:
    record = SimpleNamespace(result={"reg": reg, "model": model}, finished=True, seed=0)
    return Line(series, series, None, [cast(Any, record)], panel=panel)


def test_a_series_has_its_methods_colour_and_its_networks_shape_in_any_table() -> None:
    alone = looks(Table("a", "quick", "", [_line("none", "none"), _line("dropout", "dropout", model="sew")]))
    beside = Table(
        "b", "quick", "",
        [_line("none", "none", "cnn"), _line("none", "none", "sew", "sew"), _line("spikepen", "spikepen", "cnn"),
         _line("dropout", "dropout", "cnn"), _line("dropout", "dropout", "sew", "sew")],
    )  # fmt: skip
    assert alone["dropout"] == looks(beside, "sew")["dropout"] == Look("#1964f6", "v", "-", "#1964f6")
    assert looks(beside, "cnn")["dropout"].marker == "o"
    assert looks(beside, "cnn")["none"] == Look("#737a86", "o", "--", "#737a86")


def test_series_of_one_method_have_shades_and_dashes_of_their_own() -> None:
    series = [("first order", "none"), ("first order", "spikepen"), ("squared", "none"), ("squared", "spikepen")]
    look = looks(Table("a", "quick", "", [_line(*names) for names in series]))
    assert look["first order"] == Look("#e45705", "o", "-", "#e45705")
    # 0.55 of 228, 87 and 5.
    assert look["squared"] == Look("#7d3003", "o", "--", "white")


def test_where_nothing_regularizes_colours_tell_the_series_apart() -> None:
    look = looks(Table("a", "quick", "", [_line("25 neurons", "none"), _line("50 neurons", "none")]))
    assert look["25 neurons"].colour != look["50 neurons"].colour


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["spikings.0", "spikings.1"], ["layer 1", "layer 2"]),
        (
            ["spiking_stem", "stages.0.0.spiking1", "stages.0.1.spiking2", "stages.1.0.spiking1"],
            ["stem", "block 1, neuron 1", "block 2, neuron 2", "block 3, neuron 1"],
        ),
        (["blocks.0.spiking_depthwise", "blocks.1.spiking_pointwise"], ["block 1, depthwise", "block 2, pointwise"]),
        (["inhibitory", "excitatory"], ["inhibitory", "excitatory"]),
    ],
)
def test_layers_are_named_in_words(names: list[str], words: list[str]) -> None:
    assert layer_names(names) == words


def _learning(folder: Path, records: SimpleNamespace, methods: int) -> Table:
    """A table of a baseline and methods at three strengths, with two seeds and, of one line, three."""
    for place in range(methods):
        for rank, strength in enumerate((0.1, 0.2, 0.5) if place else (None,)):
            for seed in range(3 if place == rank == 0 else 2):
                reg = METHODS[place]
                regs = {reg: {} if strength is None else {"p": strength}}
                made = records.record(
                    run_id=f"r-{place}-{rank}-s{seed}", reg=reg, strength=strength, regs=regs, seed=seed
                )
                records.put(folder, made)
    (table,) = groups(gather([folder], False, lambda line: None))
    return table


def test_of_many_lines_each_method_has_an_axis_of_its_own(tmp_path: Path, records: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib")
    drawn = {figure.name: figure for figure in figures(analyse(_learning(tmp_path, records, 5)))}
    with style():
        figure = drawn["curves"].draw()
    axes = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in axes] == ["none", "dropout", "spikepen", "weight_decay", "weightnorm"]
    for axis in axes:
        own = [line for line in axis.lines if line.get_color() != "#dddddd"]
        assert len(axis.lines) == 13
        assert len(own) == (1 if axis.get_title() == "none" else 3)
        low, high = axis.get_ylim()
        assert 0 <= low < high <= 100


def test_every_figure_says_how_many_seeds_it_shows(tmp_path: Path, records: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib")
    drawn = figures(analyse(_learning(tmp_path, records, 3)))
    assert {"accuracy_over_rate", "gap", "layers", "curves", "pareto"} <= {figure.name for figure in drawn}
    for figure in drawn:
        with style():
            assert figure.draw().get_suptitle().endswith(", n = 2 to 3 seeds"), figure.name


def test_what_is_drawn_is_hashed_by_its_numbers() -> None:
    """Names of fields and digits after the sixth are not in the hash."""

    def draw() -> None:
        raise AssertionError("a hash needs no picture")

    drawn = Drawn("gap", "", {"none": [Bar(1.00000049, 0.5, 0.25)]}, draw)  # type: ignore[arg-type]
    assert drawn.digest == hashlib.sha256(b'["gap", {"none": [[1.0, 0.5, 0.25]]}]').hexdigest()
