"""All that was measured into a folder, as a page; each measurement as what it compares, networks or regularizers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import markdown
from bench.speed import show, show_methods, start

OLD = {"floor_images_per_s": "roof_images_per_s", "share_of_floor": "share_of_roof"}
"""Keys that older files have for what is now called the roof."""

RATIOS = (
    "network", "data, batch", "images/s", "SpikingJelly, eager", "its best", "share of the roof", "over epochs",
    "saved", "SpikingJelly saves", "n",
)  # fmt: skip
"""The columns of the networks' table, of `show.ratio_cells`."""


def name(measured: dict[str, Any]) -> str:
    """The file that a measurement goes into, in a folder of several."""
    env = measured["env"]
    if "startup" in measured:
        return f"{start.WORD}-{env['model']}-{env['data']}.json"
    kind = "regs-" if "methods" in measured else ""
    return f"{kind}{env['model']}-{env['data']}-b{env['batch_size']}-{env['device']}.json"


def read(path: Path) -> dict[str, Any]:
    """What a file holds, with today's keys and words."""

    def named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {OLD.get(key, key): value for key, value in pairs}

    measured: dict[str, Any] = json.loads(path.read_text(), object_pairs_hook=named)
    env = measured["env"]
    env["notes"] = [line.replace("the floor counts", "the roof counts") for line in env.get("notes", [])]
    return measured


def measurements(folder: Path) -> dict[Path, dict[str, Any]]:
    """The measurements in a folder: of networks, of regularizers, of the start of a run."""
    named = [*folder.glob("*-*-b*-*.json"), *folder.glob(f"{start.WORD}-*.json")]
    found = {path: read(path) for path in sorted(named)}
    return dict(sorted(found.items(), key=lambda item: ("startup" in item[1], "methods" in item[1])))


def tables(measured: dict[str, Any]) -> list[Table]:
    """What was measured, in rows."""
    if "startup" in measured:
        return []
    return show_methods.tables(measured) if "methods" in measured else [show.table(measured)]


def text(measured: dict[str, Any]) -> list[str]:
    """The lines below the tables."""
    if "startup" in measured:
        return start.text(measured)
    return show_methods.text(measured) if "methods" in measured else show.text(measured)


def chart(measured: dict[str, Any], path: Path) -> Path | None:
    """Write its bar chart; None without matplotlib, and of a start."""
    if "startup" in measured:
        return None
    return show_methods.chart(measured, path) if "methods" in measured else show.chart(measured, path)


def page(folder: Path) -> str:
    """A page of all measurements in a folder: ratios first, then each one's tables, chart and evidence."""
    contents = measurements(folder)
    networks = [measured for measured in contents.values() if "arms" in measured]
    parts = ["<!-- Written by `python -m bench speed ... --out FOLDER`; do not edit. -->", "# Training speed"]
    if networks:
        parts += [
            "Images/s of whole training steps, on one resident batch, beside networks built from public packages; what "
            "counts is the ratio, measured side by side in one run. Roof: the images/s that the counted work allows at "
            f"the machine's own ceilings. {show.WHY_ABOVE} "
            "Saved: what a forward pass keeps for backward, beside SpikingJelly's at the same precision.",
            markdown.table(RATIOS, [show.ratio_cells(measured) for measured in networks], "llr"),
        ]
    for path, measured in contents.items():
        if "startup" in measured:
            parts += ["## The start of a run", "\n".join(f"- {line}" for line in text(measured))]
            continue
        console = Console(width=100, file=io.StringIO(), record=True)
        for rows in tables(measured):
            console.print(rows)
        evidence = "\n".join(f"- {line}" for line in text(measured))
        shown = "\n".join(line.rstrip() for line in console.export_text().splitlines())
        of = measured["env"]["model"] + (": regularizers against none" if "methods" in measured else "")
        parts += [f"## {of}", f"```\n{shown}\n```", evidence, f"![{path.stem}]({path.stem}.png)"]
    return "\n\n".join(parts) + "\n"
