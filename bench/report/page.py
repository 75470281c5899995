"""`reports/index.html`: the answer in a sentence, the ranked table, the trade-off, and all runs behind them."""

from __future__ import annotations

import hashlib
import html
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records.schema import MEASURES, Role, keys
from bench.report import kept, leaderboard_text
from bench.report.analysis import Analysis, TableRow
from bench.report.collect import StoredRun
from bench.report.contrasts import Contrast
from bench.report.figures import colour_of, shape_of
from bench.report.figures.maps import layer_names
from bench.report.leaderboard import Board, Entry, Leaderboard
from bench.report.stats import Estimate
from bench.report.tables import Line, Table, canonical
from bench.report.twins import ENERGY, Twin, kind_of, twins
from bench.report.words import ACCURACY, GAP, NOTHING, RATE, interval, replicates_text

_NONE = leaderboard_text.NONE
_SYNOPS, _ENERGY = MEASURES["synops_per_image"], ENERGY
_NUMBERS = (ACCURACY, GAP, RATE, _SYNOPS, _ENERGY)
_DATA = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "fashion_mnist": "Fashion-MNIST"}
# Of `config.yaml`, what may tell groups apart; the rest of what does stands in the record.
_CONFIG = ("data", "neuron", "optim", "trainer")
_ELSEWHERE = {"data.limit", "data.name", "neuron.name", "optim.lr", "optim.name", "data_checksum", "budget", "epochs"}


def available() -> bool:
    """Whether the packages that draw the page's charts are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("altair", "vl_convert"))


def render(
    groups: Sequence[Analysis],
    reports: Sequence[Analysis],
    records: Sequence[StoredRun],
    leaderboard: Leaderboard | None = None,
) -> str:
    """The page, where its packages are `available`.

    It opens on the leaderboard's first workload; without a leaderboard on the group with the most runs.

    Args:
        groups: of all groups of records: what is shown.
        reports: of the tables that have folders: what is linked.
        records: all records.
        leaderboard: methods tuned on workloads, where there are any.
    """
    content = _content(groups, reports, records, leaderboard)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    content["charts"], altair, libraries = _charts()
    answer = content["views"][content["start"]]["sentence"]
    parts = {
        "$NOTE": f"source sha256:{digest}; snn-bench, Altair {altair}",
        "$ANSWER": re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(answer)),
        "$FOOTER": (
            "Charts: Vega and Vega-Lite, University of Washington Interactive Data Lab, BSD-3-Clause, inlined. This "
            "page loads nothing from anywhere."
        ),
        # No "<" inside a script: "</script>" in a label would end it.
        "$DATA": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
        "$LIBRARIES": libraries.replace("</script", "<\\/script"),
    }
    text = (Path(__file__).parent / "page.html").read_text()
    for name, value in parts.items():
        head, _, tail = text.partition(name)
        text = head + value + tail
    return text


def _charts() -> tuple[list[dict[str, Any]], str, str]:
    """The charts' specifications, Altair's version, and the JavaScript that draws them: they follow from no record."""
    place = kept.place("charts", b"")
    if known := kept.take(place):
        specifications, version, libraries = known
        return specifications, version, libraries
    import altair
    import vl_convert  # type: ignore[import-not-found,unused-ignore]

    from bench.report.charts import charts

    made = charts(), altair.__version__, vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    kept.keep({place: made})
    return made


def _content(
    groups: Sequence[Analysis],
    reports: Sequence[Analysis],
    records: Sequence[StoredRun],
    leaderboard: Leaderboard | None,
) -> dict[str, Any]:
    """Everything on the page but the charts' specifications, rounded to what is shown."""
    known, labels = twins(records), _runs_labels([analysis.table for analysis in groups])
    boards = [_board_view(board) for board in leaderboard.boards] if leaderboard else []
    views = [*boards, *(_group_view(one, label, known) for one, label in zip(groups, labels, strict=True))]
    most = max(range(len(boards), len(views)), key=lambda place: len(views[place]["runs"]), default=0)
    methods = sorted({str(record.result["reg"]) for record in records} - {_NONE})
    seeds = len({record.seed for record in records})
    return {
        "about": (
            f"{len(records)} runs, {len(methods)} regularizers, {seeds} seeds. Accuracies are the last epoch's, on the "
            "test set. Spike rate: spikes / (neurons x time steps x images)."
            + (f" {apart}." if (apart := replicates_text(records)) else "")
        ),
        "views": views,
        "start": 0 if boards else most,
        "overall": [
            {"method": name, "colour": colour_of(name), "mean": _short(mean), "low": _short(low), "high": _short(high)}
            for name, mean, low, high in (leaderboard.overall if leaderboard else ())
        ],
        "reports": [[analysis.table.folder, analysis.table.title] for analysis in reports],
    }


def _short(value: float | None, digits: int = 5) -> float | None:
    """A number to so many significant digits."""
    return None if value is None else float(f"{value:.{digits}g}")


def _mean(value: Estimate | Contrast | None) -> float | None:
    return None if value is None else value.mean if isinstance(value, Estimate) else value.difference


def _ends(estimate: Estimate | None) -> list[float | None]:
    return [None, None, None] if estimate is None else [*map(_short, (estimate.mean, estimate.low, estimate.high))]


def _look(method: str, network: str = "") -> dict[str, Any]:
    return {"reg": method, "colour": colour_of(method), "shape": shape_of(network).symbol if network else "circle"}


def _cell(text: str, value: float | None = None) -> dict[str, Any]:
    """A cell of a table: its text, and what it is sorted by."""
    return {"text": text, "value": _short(value)}


def _board_view(board: Board) -> dict[str, Any]:
    """A workload of the leaderboard."""
    rows, points, best, trials = [], [], [], []
    places = {name: place for place, name in enumerate(dict.fromkeys(entry.method for entry in board.entries))}
    for place, (entry, texts) in enumerate(zip(board.entries, leaderboard_text.rows(board), strict=True)):
        values = [
            entry.rank, None, _mean(entry.accuracy), _mean(entry.difference), _mean(entry.rate),
            _mean(entry.rate_change), _mean(entry.frugal_change), entry.at_three_quarters,
            entry.gain, entry.passes, entry.energy, float(entry.seeds),
        ]  # fmt: skip
        base = {"id": f"{board.workload} {place}", **_look(entry.method), "place": places[entry.method]}
        rows.append(base | {
            "cells": [_cell(text, value) for text, value in zip(texts, values, strict=True)],
            "complete": entry.complete, "baseline": entry.method == _NONE, "detail": entry.setting,
        })  # fmt: skip
        tuned = entry.ruleset != "default"
        if tuned:
            points += [base | point for point in _board_points(entry)]
            named = base | {"setting": entry.method}
            best += [named | {"n": n, "acc": _short(acc)} for n, acc in enumerate(entry.best_of, 1)]
            tried = board.trials.get(entry.method, ())
            trials += [named | {"rate": _short(rate), "acc": _short(acc)} for rate, acc in tried]
    machines = sorted({entry.hardware for entry in board.entries if entry.hardware})
    return {
        "kind": "board", "key": board.workload, "title": board.title, "sentence": leaderboard_text.sentence(board),
        "columns": leaderboard_text.about(), "rows": rows, "points": points, "best": best, "trials": trials,
        "n": _n(entry.seeds for entry in board.entries if entry.complete), "runs": [], "costs": ["rate"],
        "note": "Tuned: every method got the same number of trials of its own settings, the learning rate and the "
                "weight decay; the choice was made on validation images, retrained with fresh seeds and tested once."
                + (f" Times: {', '.join(machines)}." if machines else ""),
        "reduced": "", "baseline": _NONE,
    }  # fmt: skip


def _board_points(entry: Entry) -> list[dict[str, Any]]:
    """Where a tuned entry lies in the trade-off: its choice, and the one of the fewest spikes where that is another."""
    choices = [(entry.method, entry.setting, entry.accuracy, entry.rate, entry.difference)]
    # The baseline is one point: all else is measured by it.
    if entry.method != _NONE and entry.frugal_setting != entry.setting:
        label = f"{entry.method}, fewest spikes"
        difference = entry.frugal_difference
        choices.append((label, entry.frugal_setting, entry.frugal_accuracy, entry.frugal_rate, difference))
    points = []
    for label, setting, accuracy, rate, difference in choices:
        if accuracy is not None and rate is not None:
            mean, low, high = _ends(accuracy)
            points.append({
                "setting": f"{label}: {setting}", "seeds": entry.seeds, ACCURACY.column: mean,
                f"{ACCURACY.column}Low": low, f"{ACCURACY.column}High": high, RATE.column: _short(rate.mean),
                "label": label, "verdict": "baseline" if difference is None else str(difference.verdict),
            })  # fmt: skip
    return points


def _n(counts: Iterable[int]) -> str:
    known = sorted({count for count in counts if count})
    if not known:
        return "n = 0"
    many = f"{known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"
    return f"n = {many} seed{'s' * (known[-1] > 1)}"


def _words(label: str) -> str:
    """A setting's label in words: `spikepen weight=0.5` as `spikepen, weight 0.5`."""
    return ", ".join(part.replace("=", " ") for part in label.split(" "))


def _group_view(analysis: Analysis, runs_label: str, known: Mapping[tuple[Any, ...], Twin]) -> dict[str, Any]:
    """A group of records: all its settings against its baseline."""
    table = analysis.table
    first = table.records[0].result
    network, data = str(first["model"]), str(first["data"])
    twin = None if first["neuron"] == "relu" else known.get(kind_of(table.records[0]))
    entries, rows, points, curves, layers, runs = [], [], [], [], [], []
    places = {name: place for place, name in enumerate(dict.fromkeys(_method(row.line) for row in analysis.rows))}
    for place, row in enumerate(analysis.rows):
        method, words = _method(row.line), _words(row.line.label)
        base = {"id": str(place), **_look(method, network), "setting": words, "place": places[method], "order": place}
        entry = _entry(row)
        entries.append(entry)
        rows.append(base | {"cells": _cells(row, entry, twin), "complete": True,
                            "baseline": row.line.against is None, "detail": ""})  # fmt: skip
        cheap = row.cheap or row.line.against is None
        points.append(base | _point(row) | {"label": words if cheap else "", "curve": row.line.series})
        curves += [base | point for point in _curve(row.line)]
        layers += [base | layer for layer in _layers(row.line)]
        runs += [_run(record, words, method) for record in row.line.records]
    title = (
        f"{_DATA.get(data, data.capitalize())} ({network}, budget {table.budget}: {first['train_images']:,} images, "
        f"{first['epochs']} epoch{'s' * (first['epochs'] != 1)})"
    )
    energy = f"{_ENERGY.heading}, ReLU twin {_ENERGY.text(twin.energy)}" if twin else _ENERGY.heading
    plain = any(row.line.plain for row in analysis.rows)
    against = _NONE if plain else "baseline"
    board = Board(table.folder, title, tuple(entries), {})
    if not plain:
        answer = f"On {title}, there is no run without a regularizer to compare with."
    elif len(analysis.rows) == 1:
        answer = f"On {title}, only the baseline was run."
    else:
        answer = leaderboard_text.sentence(board)
    return {
        "kind": "group", "key": runs_label, "data": data, "dataName": _DATA.get(data, data), "network": network,
        "glyph": shape_of(network).glyph, "title": title, "sentence": answer,
        "columns": [
            ("setting", "The regularizer and what differs between its settings."),
            ("accuracy (%)", "Test accuracy after the last epoch: mean over seeds, with its 95 % interval."),
            (f"vs {against} (points)", "Against the baseline, with its 95 % interval, and the verdict."),
            ("spike rate", RATE.says), (f"spikes vs {against}", "Ratio to the baseline's, and the verdict."),
            ("gap (points)", GAP.says), (_SYNOPS.heading, _SYNOPS.says),
            (energy, _ENERGY.says + ("; share of the non-spiking twin's below it" if twin else "")),
            ("n", "Seeds that finished; those that diverged."),
        ],
        "rows": rows, "points": points, "curves": curves, "layers": layers, "runs": runs,
        "n": _n(len(row.line.seeds) for row in analysis.rows), "costs": ["rate", "synops", "energy"],
        "note": "Settings as they were run, none of them tuned. Verdicts are corrected for all settings compared.",
        "reduced": (
            f"Reduced runs (budget {table.budget}): small networks, few images or epochs. Trends, not the papers' "
            "numbers." if table.reduced else ""
        ),
        "baseline": next((_method(row.line) for row in analysis.rows if row.line.against is None), _NONE),
    }  # fmt: skip


def _method(line: Line) -> str:
    return str(line.records[0].result["reg"])


def _entry(row: TableRow) -> Entry:
    """A row as the leaderboard's sentence reads it: nothing was searched, so it is neither tuned nor ranked."""
    line, baseline = row.line, row.line.against is None
    return Entry(
        workload="", method=_NONE if baseline else _words(line.label), ruleset="grid", setting="", complete=True,
        why="", trials=0, seeds=len(line.seeds), diverged=len(line.diverged), accuracy=row.estimate(ACCURACY.column),
        difference=row.contrasts[ACCURACY.column], rate=row.estimate(RATE.column),
        rate_change=row.contrasts[RATE.column], frugal_rate=None, frugal_accuracy=None, frugal_setting="",
        frugal_change=None, frugal_difference=None, at_half=None, at_three_quarters=None, passes=1.0, ms_per_step=None,
        gain=None, energy=row.mean(_ENERGY.column), best_of=(), hardware="", rank=None,
    )  # fmt: skip


def _cells(row: TableRow, entry: Entry, twin: Twin | None) -> list[dict[str, Any]]:
    """A group's row in the ranked table."""
    line, energy = row.line, row.mean(_ENERGY.column)
    difference, change = entry.difference, entry.rate_change
    missing = "baseline" if line.against is None else NOTHING if line.idle else "-"
    told = missing if difference is None or line.idle else leaderboard_text.points_text(difference)
    diverged = f", {len(line.diverged)} diverged" if line.diverged else ""
    beside = f" [{100 * energy / twin.energy:.0f} % of it]" if twin and energy is not None else ""
    return [
        _cell(_words(line.label)),
        _cell(interval(ACCURACY, row.estimate(ACCURACY.column)), row.mean(ACCURACY.column)),
        _cell(told, _mean(difference)),
        _cell(interval(RATE, row.estimate(RATE.column)), row.mean(RATE.column)),
        _cell(leaderboard_text.percent_text(change) if change else missing, _mean(change)),
        _cell(GAP.text(row.mean(GAP.column)), row.mean(GAP.column)),
        _cell(_SYNOPS.text(row.mean(_SYNOPS.column)), row.mean(_SYNOPS.column)),
        _cell(_ENERGY.text(energy) + beside, energy),
        _cell(f"{len(line.seeds)}{diverged}", len(line.seeds)),
    ]


def _point(row: TableRow) -> dict[str, Any]:
    """A setting's numbers, over seeds."""
    numbers: dict[str, Any] = {field.column: _short(row.mean(field.column)) for field in _NUMBERS}
    _, low, high = _ends(row.estimate(ACCURACY.column))
    judged = "baseline" if row.line.against is None else NOTHING if row.line.idle else row.verdict
    return numbers | {
        f"{ACCURACY.column}Low": low, f"{ACCURACY.column}High": high, "seeds": len(row.line.seeds),
        "strength": row.line.strength, "verdict": None if judged is None else str(judged),
    }  # fmt: skip


def _run(record: StoredRun, setting: str, method: str) -> dict[str, Any]:
    texts = [
        record.run_id, setting, str(record.seed), str(record.result["status"]),
        *(field.text(record.number(field.key)) for field in (ACCURACY, GAP, RATE, _ENERGY)),
        str(record.result["hardware"]), (record.result["commit"] or "unknown")[:10],
    ]  # fmt: skip
    values = [record.number(field.key) for field in (ACCURACY, GAP, RATE, _ENERGY)]
    sort = [None, None, float(record.seed), None, *values, None, None]
    return {"reg": method, "cells": [_cell(text, value) for text, value in zip(texts, sort, strict=True)]}


def _curve(line: Line) -> list[dict[str, Any]]:
    """Mean test accuracy of the epochs that all runs have."""
    by_epoch: dict[int, list[float]] = {}
    runs = [record for record in line.records if record.finished and record.epochs]
    for record in runs:
        for row in record.epochs:
            accuracy = (row.get("test") or {}).get("acc")
            if accuracy is not None:
                by_epoch.setdefault(row["epoch"] + 1, []).append(accuracy)
    # At most 60 points a curve: a page, not an archive.
    epochs = sorted(epoch for epoch, values in by_epoch.items() if len(values) == len(runs))
    step = -(-len(epochs) // 60) or 1
    kept = sorted({*epochs[::step], *epochs[-1:]})
    return [{"epoch": epoch, ACCURACY.column: _short(sum(by_epoch[epoch]) / len(runs), 4)} for epoch in kept]


def _layers(line: Line) -> list[dict[str, Any]]:
    """Mean spike rate of each layer that was measured in all runs; none where the runs' layers differ in number."""
    runs = [record.result["layers"] for record in line.records if record.finished]
    if not runs or len({len(layers) for layers in runs}) != 1:
        return []
    rows = []
    names = layer_names([layer["name"] for layer in runs[0]])
    for place, (name, same) in enumerate(zip(names, zip(*runs, strict=True), strict=True), 1):
        rates = [layer["spike_rate"] for layer in same if layer["spike_rate"] is not None]
        if len(rates) == len(runs):
            rows.append({"place": place, "layer": name, "rate": _short(sum(rates) / len(rates), 4)})
    return rows


def _runs_labels(tables: Sequence[Table]) -> list[str]:
    """Of each group its budget and what tells it from others of its data set and network, in words."""
    settings = [_settings(table.records[0]) for table in tables]
    labels: list[str] = []
    for place, table in enumerate(tables):
        own = settings[place]
        family = [other for other, sibling in zip(settings, tables, strict=True) if sibling.name == table.name]
        differ = [
            key
            for key in own
            # What only some of the records know of came later, at rest.
            if key not in _ELSEWHERE and all(key in other for other in family)
            if len({canonical(other[key]) for other in family}) > 1
        ]
        words = [text for key in differ if (text := _setting_words(key, own[key]))]
        label = ", ".join([f"budget {table.budget}", *words])
        taken = [f"{other.name} {known}" for other, known in zip(tables, labels, strict=False)]
        count = taken.count(f"{table.name} {label}")
        labels.append(f"{label} ({count + 1})" if count else label)
    return labels


def _settings(record: StoredRun) -> dict[str, Any]:
    """What may tell a group from another, under dotted keys."""
    settings = {key: record.result[key] for key in keys(Role.setting) if key != "model_args"}
    settings |= record.result["model_args"]
    for part in _CONFIG:
        section = record.config.get(part)
        for key, value in section.items() if isinstance(section, dict) else ():
            if not isinstance(value, dict | list) and key not in settings:
                settings[f"{part}.{key}"] = value
    return settings | {"init_seed": record.config.get("init_seed")}


def _setting_words(key: str, value: Any) -> str:
    """A setting that differs, short; nothing where it is at rest."""
    texts = {
        "lr": lambda: f"learning rate {value:g}",
        "optimizer": lambda: {"sgd": "SGD", "adamw": "AdamW"}.get(value, str(value)),
        "precision": lambda: str(value),
        "train_images": lambda: f"{value:,} images",
        "time_steps": lambda: f"{value} time step{'s' * (value != 1)}",
        "neuron": lambda: "ReLU twin" if value == "relu" else f"{str(value).upper()} neurons",
        "neurons": lambda: f"{value} neurons",
        "train_leak": lambda: f"leak {'trained' if value else 'fixed'}",
        "train_threshold": lambda: f"threshold {'trained' if value else 'fixed'}",
        "data.val_fraction": lambda: f"{100 * value:.0f} % for validation" if value else "no validation images",
        "init_seed": lambda: "one start for all seeds",
        "twin": lambda: "",
        "trainer.eval_every": lambda: "",
        "test_images": lambda: "",
    }
    if value is None:
        return ""
    if key in texts:
        return texts[key]()
    name = key.rsplit(".", 1)[-1].replace("_", " ")
    return (name if value else f"not {name}") if isinstance(value, bool) else f"{name} {value}"
