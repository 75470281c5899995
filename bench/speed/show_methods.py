"""What was measured of sets of regularizers, for people: two tables, lines below them, and a bar chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from bench.console import plain_table
from bench.speed.show import circumstances, mebibytes, pace
from bench.speed.ways import DIFFERS

COLOURS = {"one pass": "#2a7f9e", "reads potentials": "#d95f02", "several passes": "#7b6bb0", "none": "#7f8c9b"}


def times(value: float | None) -> str:
    """A ratio, `1.02 x`."""
    return "-" if value is None else f"{value:.2f} x"


def table(title: str, columns: tuple[str, ...]) -> Table:
    """An empty table whose first column is text."""
    out = plain_table(title)
    for place, column in enumerate(columns):
        out.add_column(column, justify="right" if place else "left", no_wrap=True)
    return out


def title(env: dict[str, Any]) -> str:
    """What was measured, in a line."""
    return f"{env['model']}, {env['data']}, batch {env['batch_size']}, T = {env['time_steps']}"


def tables(measured: dict[str, Any]) -> list[Table]:
    """A row for each set of regularizers, and one for each that SpikingJelly's users can write; 100 characters wide."""
    env = measured["env"]
    steps, longer = times_of(measured)
    head = ("reg", "images/s", "of none", "min - max", "goal", "passes", "memory", "of none")
    ours = table(f"{title(env)}: training, against none", (*head, f"T = {longer}") if longer else head)
    for row in measured["methods"]:
        share, memory = row["of_none"], row["memory"]
        cells = [
            row["name"],
            pace(row["images_per_s"]["median"]),
            f"{share['median']:.2f}",
            f"{share['min']:.2f} - {share['max']:.2f}",
            "" if row["goal"] is None else f"{row['goal']:.2f}{'' if share['median'] >= row['goal'] else ' !'}",
            f"{row['passes_per_step']:g}",
            mebibytes(memory[steps]["step_memory_bytes"]),
            times(memory[steps]["of_none"]),
        ]
        if longer:
            cells.append(times(memory[longer]["of_none"]) if longer in memory else "")
        ours.add_row(*cells)
    if not measured["peers"]:
        return [ours]
    theirs = table("SpikingJelly, eager", ("reg", "images/s", "of its none", "bench is", "memory", "bench takes"))
    for row in measured["peers"]:
        memory = row["memory"][steps]
        theirs.add_row(
            row["name"],
            pace(row["images_per_s"]["median"]),
            f"{row['of_none']['median']:.2f}",
            times(row["bench_is"]["median"]),
            mebibytes(memory["step_memory_bytes"]),
            times(memory.get("bench_takes")),
        )
    return [ours, theirs]


def times_of(measured: dict[str, Any]) -> tuple[str, str | None]:
    """The time steps of the rounds, and those at which memory alone was measured; None where there are none."""
    steps = str(measured["env"]["time_steps"])
    longer = [key for row in measured["methods"] for key in row["memory"] if key != steps]
    return steps, longer[0] if longer else None


def text(measured: dict[str, Any]) -> list[str]:
    """The lines below the tables."""
    env = measured["env"]
    short = [row["name"] for row in measured["methods"] if row["goal"] and row["of_none"]["median"] < row["goal"]]
    lines = [
        f"shares: of the pace of none in the same round, median of {env['rounds']}; whose goal is not reached, is "
        "marked by !",
        "goals: .9 where counts are read or masks drawn, .6 where potentials are, divided by the passes a step",
        f"below their goal: {', '.join(short) or 'none'}",
        "memory: the peak while training beyond what was there before the network was made",
        f"bench: as run trains it, {env['precision']}, {env['ops']} kernels",
    ]
    if measured["peers"]:
        lines.append(f"SpikingJelly: stock settings, eager, {env['precision']} as bench, the stem T times")
        lines += [f"SpikingJelly, {name}: {how}" for name, how in DIFFERS.items() if named(name, measured["peers"])]
        lines += [half(measured)]
    lines += [f"{name} is left out: {why}" for name, why in env["left_out"].items()]
    return [*lines, *env["notes"], *circumstances(env)]


def named(name: str, rows: list[dict[str, Any]]) -> bool:
    """Whether a regularizer is in one of the sets."""
    return any(name in row["name"].split("+") for row in rows)


def half(measured: dict[str, Any]) -> str:
    """Whether training without a regularizer takes at most half of SpikingJelly's memory."""
    none = next(row for row in measured["peers"] if row["name"] == "none")["memory"]
    parts = []
    for steps, memory in none.items():
        taken = memory["bench_takes"]
        if taken is not None:
            parts.append(f"{taken:.2f} of it at T = {steps}{'' if taken <= 0.5 else ', more than half'}")
    return f"none beside SpikingJelly's memory at the same precision: {'; '.join(parts) or 'unknown'}"


def kind(row: dict[str, Any]) -> str:
    """What a set of regularizers is aimed at by."""
    if row["goal"] is None:
        return "none"
    if row["passes_per_step"] > 1:
        return "several passes"
    return "reads potentials" if row["reads_potential"] else "one pass"


def chart(measured: dict[str, Any], path: Path) -> Path | None:
    """Write a bar for each set, none being 1, from the smallest to the largest round; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        return None
    env = measured["env"]
    rows = sorted(measured["methods"], key=lambda row: row["of_none"]["median"])
    shares = [row["of_none"] for row in rows]
    medians = [share["median"] for share in shares]
    whiskers = [[s["median"] - s["min"] for s in shares], [s["max"] - s["median"] for s in shares]]
    steps, _ = times_of(measured)
    figure = Figure(figsize=(9, 1.8 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    names = [row["name"] for row in rows]
    colours = [COLOURS[kind(row)] for row in rows]
    axes.barh(names, medians, xerr=whiskers, color=colours, ecolor="#333333", capsize=2, height=0.7)
    right = 1.05 * max(1.0, *(share["max"] for share in shares))
    for place, row in enumerate(rows):
        passes = f"{row['passes_per_step']:g} pass{'es' if row['passes_per_step'] != 1 else ''}"
        words = f"{medians[place]:.2f}   {passes}, memory {times(row['memory'][steps]['of_none'])}"
        axes.text(right, place, words, va="center", fontsize=7)
    for goal in sorted({row["goal"] for row in rows if row["goal"] is not None}):
        axes.axvline(goal, color="#333333", linestyle="--", linewidth=0.8)
        axes.text(goal, 1.005, f"{goal:.2f}", transform=axes.get_xaxis_transform(), ha="center", fontsize=7)
    axes.axvline(1, color="#333333", linewidth=0.8)
    axes.text(1, 1.005, "none", transform=axes.get_xaxis_transform(), ha="center", fontsize=7)
    axes.set_xlim(0, right)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel(f"training pace, none = 1 (median of {env['rounds']}, whiskers: min and max; dashed: goals)")
    axes.set_title(f"{title(env)}\n{env['hardware']}, {env['precision']}", fontsize=10, pad=16)
    shown = [name for name in COLOURS if name in {kind(row) for row in rows}]
    bars = [Patch(color=COLOURS[name]) for name in shown]
    figure.legend(bars, shown, loc="outside lower center", ncols=len(shown), fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return path
