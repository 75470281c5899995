"""What was measured of networks, for people: a table, lines below it, and a bar chart."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.console import plain_table

WHY_ABOVE = (
    "A share can pass 100 %: the roof counts convolutions by their definition, 36 products where Winograd's algorithm "
    "for 3x3 ones takes 16."
)


def mebibytes(count: int | None) -> str:
    """Bytes in MiB."""
    return "-" if count is None else f"{count / 2**20:,.0f} MiB"


def pace(value: float) -> str:
    """Images per second in three digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def table(measured: dict[str, Any]) -> Table:
    """One row for each arm and mode, no wider than 100 characters."""
    env = measured["env"]
    title = f"{env['model']}, {env['data']}, batch {env['batch_size']}, T = {env['time_steps']}: training, images/s"
    out = plain_table(title)
    for column in ("arm", "mode"):
        out.add_column(column, no_wrap=True)
    for column in ("median", "min - max", "bench is", "roof", "peak", "saved"):
        out.add_column(column, justify="right", no_wrap=True)
    for row in measured["arms"]:
        images = row["images_per_s"]
        ratio = measured["ratios"].get(row["name"])
        out.add_row(
            row["name"],
            row["mode"],
            pace(images["median"]),
            f"{pace(images['min'])} - {pace(images['max'])}",
            "" if ratio is None else f"{ratio:.2f} x",
            f"{row['share_of_roof']:.1%}",
            mebibytes(row["peak_memory_bytes"]),
            mebibytes(row["saved_bytes_for_backward"]) if "saved_bytes_for_backward" in row else "",
        )
    return out


def ratio_cells(measured: dict[str, Any]) -> list[str]:
    """A measurement's line in the page's table of ratios."""
    env, ratios = measured["env"], measured["ratios"]
    by = {row["name"]: row for row in measured["arms"] if row["mode"] == "resident"}
    ours, stock = by["bench"], by.get("spikingjelly_eager", {})
    return [
        env["model"],
        f"{env['data']}, {env['batch_size']}",
        pace(ours["images_per_s"]["median"]),
        *(f"{ratios[name]:.2f} x" if name in ratios else "-" for name in ("spikingjelly_eager", "spikingjelly_best")),
        f"{ours['share_of_roof']:.0%}",
        f"{ratios['epoch_over_resident']:.0%}",
        mebibytes(ours["saved_bytes_for_backward"]),
        mebibytes(stock.get("saved_bytes_at_our_precision")),
        str(env["rounds"]),
    ]


def text(measured: dict[str, Any]) -> list[str]:
    """The lines below the table."""
    env, top = measured["env"], measured["env"]["ceilings"]
    roof = env["roof_images_per_s"]
    lines = [
        f"bench over epochs / resident: {measured['ratios']['epoch_over_resident']:.1%}",
        f"roof: {roof['overlapped']:,.0f} img/s from {env['flops_per_image'] / 1e9:.2f} GFLOP beside "
        f"{env['bytes_per_image'] / 1e6:.1f} MB an image; one after the other {roof['serial']:,.0f}",
        *([WHY_ABOVE] if any(row["share_of_roof"] > 1 for row in measured["arms"]) else []),
        f"ceilings: conv fp32 {top['conv_fp32_flops'] / 1e9:,.0f} GFLOP/s, bf16 {top['conv_bf16_flops'] / 1e9:,.0f} "
        f"GFLOP/s, copy {top['copy_bytes'] / 1e9:,.1f} GB/s",
        f"bench: as run trains it, {env['precision']}, {env['ops']} kernels",
        *(f"{name}: {line}" for name, line in env["differs"].items()),
    ]
    lines += [
        f"{name}: ratio in each round {ratio['median']:.2f} ({ratio['min']:.2f} - {ratio['max']:.2f})"
        for name, ratio in measured["ratios_per_round"].items()
    ]
    compiled = [(row["name"], row["compile_s"]) for row in measured["arms"] if row.get("compile_s")]
    lines += [f"{name}: {seconds:.1f} s to compile and build, not counted" for name, seconds in compiled]
    return [*lines, *env["notes"], *circumstances(env)]


def circumstances(env: dict[str, Any]) -> list[str]:
    """What, when and with which versions was measured on."""
    dirty = ", changed since" if env["dirty"] else ""
    versions = " ".join(f"{name} {env['versions'][name]}" for name in ("torch", "spikingjelly", "lightning"))
    return [
        f"{env['hardware']}; n = {env['rounds']} rounds, a process per arm and round",
        f"{versions}; commit {(env['commit'] or 'none')[:8]}{dirty}; {env['date'][:10]}",
    ]


def chart(measured: dict[str, Any], path: Path) -> Path | None:
    """Write a bar for each arm and mode, from the smallest to the largest round; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    env, rows = measured["env"], measured["arms"][::-1]
    names = [f"{row['name']}\n{row['mode']}" if row["mode"] == "epoch" else row["name"] for row in rows]
    medians = [row["images_per_s"]["median"] for row in rows]
    low = [row["images_per_s"]["median"] - row["images_per_s"]["min"] for row in rows]
    high = [row["images_per_s"]["max"] - row["images_per_s"]["median"] for row in rows]
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    colors = ["#d95f02" if row["name"] == "bench" else "#7f8c9b" for row in rows]
    bars = axes.barh(names, medians, xerr=[low, high], color=colors, ecolor="#333333", capsize=3)
    axes.bar_label(bars, [f"{value:,.0f}" for value in medians], padding=6)
    roof = env["roof_images_per_s"]["overlapped"]
    axes.axvline(roof, color="#333333", linestyle="--", linewidth=1)
    axes.text(roof, 1.01, f"roof {roof:,.0f}", transform=axes.get_xaxis_transform(), ha="center", fontsize=8)
    axes.set_xlim(0, 1.12 * max(roof, *(row["images_per_s"]["max"] for row in rows)))
    axes.set_xlabel(f"images / s in training (median of {env['rounds']}, whiskers: min and max)")
    why = textwrap.fill(f"Roof: the counted work at this machine's ceilings. {WHY_ABOVE}", 100)
    figure.supxlabel(why, fontsize=7, color="#555555", x=0.01, ha="left")
    axes.set_title(
        f"{env['model']}, {env['data']}, batch {env['batch_size']}, T = {env['time_steps']}\n{env['hardware']}",
        fontsize=10,
        pad=18,
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    return path
