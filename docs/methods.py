"""Write docs/methods, a page a regularizer, from its class and its file; `bench report --into` adds the results."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from bench import markdown
from bench.commands.catalog import BASELINE, Entry, grouped, plain, section
from bench.face.handles import structure
from bench.models.base import Spec, SpikingNetwork
from bench.neurons.config import NeuronConfig
from bench.registry import MODELS, REGULARIZERS
from bench.regularizers.base import Regularizer
from bench.training import contract

FOLDER = Path(__file__).with_name("methods")
SMALL: dict[str, dict[str, Any]] = {"cnn": {"channels": 4, "depth": 2}, "sew": {"channels": 4, "depth": 1}}
"""Networks that are looked at before and after a method has attached: the second has residual branches."""

PLACES = {
    "batch": "images, labels",
    "attach": "network",
    "activity": "activity",
    "loss": "loss",
    "around_step": "gradients",
    "update": "update",
    "eval_weights": "evaluation",
}
"""Where a method can act, in the order of a step, and what the picture calls it."""

SAYS = {
    "batch": "It changes the images and labels of a step before the network sees them (`batch`).",
    "attach": "It changes the network before the optimizer exists (`attach`).",
    "activity": "It reads of every spiking layer: {reads}.",
    "loss": "It replaces the loss (`loss`), so that no other method can.",
    "penalty": "It adds a term to the loss (`penalty`).",
    "around_step": "It makes the forward and backward passes of a step its own (`around_step`), so that no other can.",
    "param_groups": "It sets options of the optimizer (`param_groups`).",
    "after_step": "It acts after the optimizer's step (`after_step`).",
    "eval_weights": "The network is judged by other weights than those that are trained (`eval_weights`).",
    "bake": "What it did can be folded into plain weights (`bake`).",
}


def attached(name: str) -> tuple[Regularizer, bool]:
    """A method as it comes, attached to the first network that takes it, and whether it changed that.

    Raises:
        ValueError: no network takes it.
    """
    for network, how in SMALL.items():
        spec = Spec((2, 8, 8), 3, 2, NeuronConfig("if"))
        model: SpikingNetwork = MODELS.get(network)(spec, **how)
        reg: Regularizer = REGULARIZERS.get(name)()
        before = structure(model)
        try:
            reg.attach(model)
        except Exception:  # it says why, which a test of its own reads
            continue
        return reg, structure(model) != before
    raise ValueError(f"no network takes {name}")


def hooks(reg: Regularizer, changed: bool) -> list[str]:
    """The hooks by which a method acts, in the order of a step; `activity` where its penalty reads any."""
    own = [hook for hook in SAYS if hook != "activity" and reg.has(hook)]
    own = [hook for hook in own if hook != "attach" or changed]
    return [hook for hook in SAYS if hook in own or (hook == "activity" and contract.reads("", reg))]


def places(acts: list[str]) -> list[str]:
    """The places of the picture that some hooks act on."""
    of = {"penalty": "loss", "param_groups": "update", "after_step": "update"}
    found = {of.get(hook, hook) for hook in acts}
    return [place for place in PLACES if place in found]


def picture(shown: list[str]) -> str:
    """A step as a row of boxes, those where a method acts filled; readable on light and on dark ground."""
    width, gap, height = 104, 16, 34
    total = len(PLACES) * (width + gap) - gap + 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height + 2}" '
        f'viewBox="0 0 {total} {height + 2}" font-family="sans-serif" font-size="13" text-anchor="middle">',
        "<style>rect{fill:none;stroke:#7d8590}text{fill:#7d8590}path{stroke:#7d8590;fill:none}"
        ".on rect{fill:#0b6e99;stroke:#0b6e99}.on text{fill:#fff;font-weight:600}</style>",
    ]
    for number, (place, text) in enumerate(PLACES.items()):
        x = 1 + number * (width + gap)
        on = ' class="on"' if place in shown else ""
        parts.append(f'<g{on}><rect x="{x}" y="1" width="{width}" height="{height}" rx="6"/>')
        parts.append(f'<text x="{x + width / 2:g}" y="{height / 2 + 5.5:g}">{text}</text></g>')
        if number:
            y = 1 + height / 2
            parts.append(f'<path d="M{x - gap + 3} {y:g}h{gap - 6}m-4 -3l4 3l-4 3"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def paragraphs(text: str) -> list[str]:
    """A docstring's paragraphs before its sections, each in one line; code and lists stay as they are."""
    prose = re.split(r"^(?:Args|Raises|Returns|Attributes|Examples):$", inspect.cleandoc(text), flags=re.MULTILINE)[0]
    return [part if part.startswith(" ") else " ".join(part.split()) for part in prose.strip().split("\n\n")]


def arguments(text: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    found = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", inspect.cleandoc(text), re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", found[1] if found else "", re.MULTILINE | re.DOTALL)
    return {name: " ".join(says.split()) for name, says in entries}


def functions(name: str) -> list[str]:
    """The pure functions of a method's file: how each is called, and what it says it computes."""
    module = sys.modules[REGULARIZERS.get(name).__module__]
    source = Path(str(module.__file__)).read_text()
    lines = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and (text := ast.get_docstring(node)):
            taken = ", ".join(argument.arg for argument in [*node.args.args, *node.args.kwonlyargs])
            lines.append(f"- `{node.name}({taken})`: {' '.join(paragraphs(text))}")
    return lines


def settings(entry: Entry, cls: type[Regularizer]) -> str:
    """The settings: default, the authors' value, what the search covers, what each is."""
    says = arguments(cls.__doc__ or "")
    rows = []
    for key, default in entry.defaults.items():
        axis: Any = cls.space.get(key)
        if axis is None:
            authors = searched = "-"
        elif hasattr(axis, "options"):
            authors = f"{plain(axis.authors)} ({axis.source})"
            searched = ", ".join(map(plain, axis.options))
        else:
            authors = f"{axis.authors:g} ({axis.source})"
            searched = f"{axis.low:g} to {axis.high:g}, {type(axis).__name__.lower()}"
        rows.append((f"`reg.{entry.name}.{key}`", f"`{plain(default)}`", authors, searched, says.get(key, "")))
    if not rows:
        return "It has none."
    return markdown.table(("setting", "default", "authors' value", "searched by `bench tune`", "what it is"), rows)


def costs(reg: Regularizer) -> str:
    """What a step costs, as far as it can be told without a clock."""
    passes = float(reg.passes_per_step)
    text = f"{passes:g} forward and backward pass{'es' * (passes != 1)} a step"
    replays = "may be" if type(reg).replayable else "are not"
    return f"{text}; on a GPU its steps {replays} replayed from a CUDA graph."


def page(entry: Entry) -> tuple[str, str, str]:
    """A method's page with no results yet, and its picture: text, the picture's name, the picture."""
    cls = REGULARIZERS.get(entry.name)
    reg, changed = attached(entry.name)
    acts = hooks(reg, changed)
    shown = places(acts)
    reads = ", ".join(f"`{read}`" for read in sorted(contract.reads(entry.name, reg)))
    image = f"acts-on-{'-'.join(PLACES[place].split(',')[0] for place in shown) or 'nothing'}.svg"
    text = [
        "<!-- Generated by `make readme`; do not edit. -->",
        f"# {entry.name}",
        f"[All methods](README.md), family {entry.group}.",
        *paragraphs(cls.__doc__ or ""),
        f"```\nbench run model=cnn reg={entry.name}\n```",
        "## Where it acts",
        f"![{', '.join(PLACES[place] for place in shown) or 'nowhere'}]({image})",
        " ".join(SAYS[hook].format(reads=reads) for hook in acts) or "Nowhere.",
        f"{costs(reg)}",
        "## Settings",
        settings(entry, cls),
    ]
    if lines := functions(entry.name):
        text += ["## In code", "\n".join(lines)]
    text += ["## What was found", f"<!-- bench report method/{entry.name} -->\n<!-- end -->"]
    return "\n\n".join(text) + "\n", image, picture(shown)


def index(entries: list[Entry]) -> str:
    """The list of all pages, by family."""
    parts = [
        "<!-- Generated by `make readme`; do not edit. -->",
        "# Methods",
        "A page a regularizer: what it does, where it acts in a training step, its authors' values, what was found. "
        "`bench list regs` prints them in the terminal. Numbers of equations that could not be looked up are said "
        "to be not verified.",
    ]
    for heading, members in grouped(entries):
        rows = [(f"[`{row.name}`]({row.name}.md)", row.summary) for row in members]
        parts += [f"## {heading[:1].upper()}{heading[1:]}", markdown.table(("method", "what it is"), rows)]
    return "\n\n".join(parts) + "\n"


def files() -> dict[str, str]:
    """Everything in the folder by name; results are kept where a page has them."""
    entries = section("regs")
    found = {"README.md": index(entries)}
    for entry in entries:
        text, image, drawn = page(entry)
        if entry.name == BASELINE:
            text = text.partition("## Settings")[0].rstrip() + "\n"
        found[f"{entry.name}.md"] = with_results(FOLDER / f"{entry.name}.md", text)
        found[image] = drawn
    return found


def with_results(path: Path, text: str) -> str:
    """A page's new text with the results that the old one has."""
    old = path.read_text() if path.exists() else ""
    kept = re.search(r"<!-- bench report \S+ -->\n.*?<!-- end -->", old, re.DOTALL)
    return re.sub(r"<!-- bench report \S+ -->\n<!-- end -->", lambda match: kept[0] if kept else match[0], text)


def main() -> None:
    """Write the folder; what belongs to no method any more goes."""
    FOLDER.mkdir(exist_ok=True)
    made = files()
    for path in FOLDER.iterdir():
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
