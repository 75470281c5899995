"""The leaderboard: tuned regularizers on each workload and over all, from studies and their final runs' records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import studies
from bench.errors import BenchError
from bench.records.schema import FIELD
from bench.report.collect import Collection, StoredRun
from bench.report.contrasts import Contrast, Scale, contrasts, intervals
from bench.report.stats import LEVEL, RESAMPLES, Estimate, Rank, Verdict, pareto, ranks
from bench.report.twins import Twin, kind_of, twins
from bench.studies import ACCURATE, DEFAULT, FRUGAL, Study, Trial, words_of

BASE = "none"
RANKED_FROM = 5
"""Seeds from which on methods are ranked."""
_ACC, _RATE = FIELD["test.acc"].key, FIELD["test.spike_rate"].key


@dataclass(frozen=True)
class Entry:
    """A method on a workload under one ruleset.

    Attributes:
        workload: its name.
        method: the regularizers, joined by +.
        ruleset: `tuned` or `default`.
        setting: what was chosen, in words.
        complete: whether it has all trials and seeds; others are not ranked.
        why: what is missing; nothing where it is complete.
        trials: number of trials.
        seeds: number of finished final runs.
        diverged: number of final runs that diverged, which no mean has.
        accuracy: test accuracy of the final runs, in percent.
        difference: of the accuracy to the tuned baseline's, in points; None for the baseline.
        rate: spike rate on the test images.
        rate_change: its ratio to the baseline's, minus 1.
        frugal_rate: spike rate of the second choice, the cheapest within a point of the baseline on validation images.
        frugal_accuracy: its test accuracy.
        frugal_setting: it, in words.
        frugal_change: its ratio to the baseline's, minus 1.
        frugal_difference: its accuracy against the baseline's, in points.
        at_half: validation accuracy that its trials reach at half the baseline's spike rate, in percent.
        at_three_quarters: the same at three quarters.
        passes: forward and backward passes a step.
        ms_per_step: milliseconds of a training step on `hardware`, beside whatever else ran there.
        gain: accuracy of the tuned choice minus that of the default, in points.
        energy: microjoules an image.
        best_of: expected best validation accuracy of n trials, n = 1, 2, ...
        hardware: of the final runs.
        rank: among the complete entries of workload and ruleset, from five seeds on.
        wins: share of the pairs of final runs in which it is more accurate than the baseline, ties as halves.
    """

    workload: str
    method: str
    ruleset: str
    setting: str
    complete: bool
    why: str
    trials: int
    seeds: int
    diverged: int
    accuracy: Estimate | None
    difference: Contrast | None
    rate: Estimate | None
    rate_change: Contrast | None
    frugal_rate: Estimate | None
    frugal_accuracy: Estimate | None
    frugal_setting: str
    frugal_change: Contrast | None
    frugal_difference: Contrast | None
    at_half: float | None
    at_three_quarters: float | None
    passes: float
    ms_per_step: float | None
    gain: float | None
    energy: float | None
    best_of: tuple[float, ...]
    hardware: str
    rank: float | None
    wins: float | None = None


@dataclass(frozen=True)
class Board:
    """A workload's table.

    Attributes:
        workload: its name.
        title: for people.
        entries: ranked first, tuned before default, incomplete ones below.
        trials: of each method, spike rate and accuracy of each trial on the validation images.
        twin: the same network with ReLU in place of its neurons; None where nobody ran it.
    """

    workload: str
    title: str
    entries: tuple[Entry, ...]
    trials: dict[str, list[tuple[float, float]]]
    twin: Twin | None = None


@dataclass(frozen=True)
class Leaderboard:
    """All workloads.

    Attributes:
        boards: one each.
        overall: of each method that is complete on all of several workloads: the interquartile mean over workloads and
            seeds of (accuracy - baseline) / (100 - baseline), with its 95 % interval.
    """

    boards: tuple[Board, ...]
    overall: tuple[tuple[str, float, float, float], ...]


@dataclass(frozen=True)
class _Choice:
    """A choice of a study with its final runs."""

    study: Study
    name: str
    trial: Trial
    runs: list[StoredRun]
    missing: int

    def values(self, key: str) -> dict[int, float]:
        """Seed -> number of each finished run."""
        numbers = ((run.seed, run.number(key)) for run in self.runs if run.finished)
        return {seed: value for seed, value in numbers if value is not None}

    @property
    def diverged(self) -> int:
        """Runs without an outcome."""
        return sum(not run.finished for run in self.runs)


def study_folders(folders: Iterable[Path]) -> list[Path]:
    """The folders of studies: in `studies` beside submitted records, or in that of one's own runs.

    Args:
        folders: where records are, `reports/records` or `runs`.
    """
    roots = [root for folder in folders for root in (folder.parent / studies.FOLDER, folder / studies.FOLDER)]
    return [path.parent for root in dict.fromkeys(roots) for path in sorted(root.glob(f"*/{studies.FILE}"))]


def load(folders: Sequence[Path], left_out: list[str]) -> list[Study]:
    """The studies of some folders; of two of one name the first counts.

    Args:
        folders: of `study_folders`.
        left_out: gains a line for each study that cannot be used.
    """
    found: dict[str, Study] = {}
    for folder in folders:
        try:
            study = studies.read(folder)
        except BenchError as error:
            left_out.append(f"left out: study {folder.name}: {error}")
        else:
            found.setdefault(folder.name, study)
    return list(found.values())


def run_ids(found: Iterable[Study]) -> set[str]:
    """All runs of some studies: what the leaderboard shows and other tables need not."""
    ids = set()
    for study in found:
        ids |= {trial.run for trial in study.trials}
        ids |= {run for choice in study.facts["choices"].values() for run in choice["runs"]}
    return ids


def leaderboard(found: Sequence[Study], collection: Collection, left_out: list[str]) -> Leaderboard | None:
    """The leaderboard; None where no workload has a study of the baseline.

    Args:
        found: of `load`.
        collection: the records, their final runs among them.
        left_out: gains a line for each study that stands in no table.
    """
    by_id = {record.run_id: record for record in collection.records}
    known = twins(collection.records)
    together: dict[str, list[Study]] = {}
    for study in found:
        together.setdefault(study.comparable, []).append(study)
    boards = []
    for group in together.values():
        board = _board(group, by_id, known, left_out)
        if board is not None:
            boards.append(board)
    if not boards:
        return None
    # A workload's own settings before others' variants of it.
    boards.sort(key=lambda board: (len(board.title), board.title))
    return Leaderboard(tuple(boards), tuple(_overall(found, boards, by_id)))


def _board(
    group: Sequence[Study],
    by_id: Mapping[str, StoredRun],
    known: Mapping[tuple[Any, ...], Twin],
    left_out: list[str],
) -> Board | None:
    """A workload's table, of studies that may stand together but for data and number of trials."""
    bases = [study for study in group if study.label == BASE]
    if not bases:
        left_out += [f"left out: study {study.folder.name}: no study of {BASE} to compare it with" for study in group]
        return None
    base = max(bases, key=lambda study: study.facts["trials"])
    checksum, wanted, seeds = (base.facts[key] for key in ("data_checksum", "trials", "seeds"))
    used: dict[str, Study] = {}
    for study in [base, *group]:
        own = study.facts["data_checksum"]
        if own is not None and own != checksum:
            left_out.append(f"left out: study {study.folder.name}: it is on another copy of the data")
        elif study.label not in used or study.facts["trials"] > used[study.label].facts["trials"]:
            used[study.label] = study
    picked = [
        _Choice(study, name, study.trials[choice["trial"]], runs, len(choice["runs"]) - len(runs))
        for study in used.values()
        for name, choice in study.facts["choices"].items()
        for runs in [[by_id[run] for run in choice["runs"] if run in by_id]]
    ]
    tuned_base = next((one for one in picked if one.study is base and one.name == ACCURATE), None)
    if tuned_base is None or not tuned_base.values(_ACC):
        left_out.append(f"left out: workload {base.facts['workload']}: {BASE} has no final runs")
        return None
    entries = _entries(picked, tuned_base, wanted, seeds)
    trials = {
        study.label: [
            (trial.val_spike_rate, trial.val_acc)
            for trial in study.trials
            if trial.status == "finished" and trial.val_spike_rate is not None and trial.val_acc is not None
        ]
        for study in used.values()
    }
    return Board(
        base.facts["workload"],
        _title(base, tuned_base),
        tuple(entries),
        trials,
        known.get(kind_of(tuned_base.runs[0])),
    )


def _title(base: Study, choice: _Choice) -> str:
    """`MNIST, 1,000 images, cnn, 40 epochs`, and what else sets the workload apart."""
    result = choice.runs[0].result
    extra = f", {' '.join(base.facts['settings'])}" if base.facts["settings"] else ""
    names = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
    data = names.get(result["data"], result["data"])
    return f"{data}, {result['train_images']:,} images, {result['model']}, {result['epochs']} epochs{extra}"


def _entries(picked: Sequence[_Choice], base: _Choice, trials: int, seeds: int) -> list[Entry]:
    """The entries of a workload, in the order in which they are shown."""
    others = [one for one in picked if one is not base and one.values(_ACC)]
    # A choice that is the baseline's own runs is not compared with itself.
    compared = [one for one in others if {run.run_id for run in one.runs} != {run.run_id for run in base.runs}]
    judged: dict[int, dict[str, Contrast | None]] = {id(one): {} for one in picked}
    # A family for each question: the best choices, the cheapest ones, the untuned ones.
    for name in (ACCURATE, FRUGAL, DEFAULT):
        family = [one for one in compared if one.name == name]
        for key, scale in ((_ACC, Scale.ACCURACY), (_RATE, Scale.RATIO)):
            found = contrasts([one.values(key) for one in family], base.values(key), scale) if family else []
            for one, contrast in zip(family, found, strict=True):
                judged[id(one)][key] = _honest(one, base, contrast)
    # All cells of a workload say how runs scatter.
    shown: dict[int, dict[str, Estimate | None]] = {id(one): {} for one in picked}
    for key, scale in ((_ACC, Scale.ACCURACY), (_RATE, Scale.RATIO)):
        for one, estimate in zip(picked, intervals([one.values(key) for one in picked], scale), strict=True):
            shown[id(one)][key] = estimate
    entries = []
    by_study: dict[int, dict[str, _Choice]] = {}
    for one in picked:
        by_study.setdefault(id(one.study), {})[one.name] = one
    for own in by_study.values():
        for ruleset in (ACCURATE, DEFAULT):
            if ruleset in own:
                entries.append(_entry(own, ruleset, base, judged, shown, trials, seeds))
    entries = _ranked(entries, by_study)
    order = {ACCURATE: 0, DEFAULT: 1}
    return sorted(
        entries,
        key=lambda e: (order[e.ruleset], not e.complete, math.inf if e.rank is None else e.rank,
                       -(e.accuracy.mean if e.accuracy else -1), e.method),
    )  # fmt: skip


def _honest(one: _Choice, base: _Choice, contrast: Contrast | None) -> Contrast | None:
    """Seeds that survived speak for a method; those that diverged cannot."""
    if contrast is not None and contrast.verdict is Verdict.BETTER and one.diverged > base.diverged:
        return replace(contrast, verdict=Verdict.TOO_FEW)
    return contrast


def _entry(
    own: Mapping[str, _Choice],
    ruleset: str,
    base: _Choice,
    judged: Mapping[int, Mapping[str, Contrast | None]],
    shown: Mapping[int, Mapping[str, Estimate | None]],
    trials: int,
    seeds: int,
) -> Entry:
    one, frugal = own[ruleset], own.get(FRUGAL) if ruleset == ACCURATE else None
    study = one.study
    done = sum(trial.status != "missing" for trial in study.trials)
    lacks = [f"{done} of {trials} trials"] if done < trials else []
    runs = len(one.runs)
    lacks += [f"{runs} of {seeds} seeds"] if runs < seeds else []
    accuracy = one.values(_ACC)
    half, three_quarters = (_at(study.trials, share * (base.trial.val_spike_rate or 0.0)) for share in (0.5, 0.75))
    default = own.get(DEFAULT)
    gain = None
    if ruleset == ACCURATE and default is not None and accuracy and default.values(_ACC):
        gain = _mean(accuracy) - _mean(default.values(_ACC))
    speeds = [(run.result["batch_size"], run.result["train_images_per_s"]) for run in one.runs]
    steps = [1000 * batch / speed for batch, speed in speeds if speed]
    energies = one.values("energy_uj")
    is_base = study.label == BASE and ruleset == ACCURATE
    return Entry(
        workload=study.facts["workload"],
        method=study.label,
        ruleset=ruleset,
        setting=words_of(one.trial.settings),
        complete=not lacks,
        why=", ".join(lacks),
        trials=done,
        seeds=len(accuracy),
        diverged=one.diverged,
        accuracy=shown[id(one)][_ACC],
        difference=None if is_base else judged[id(one)].get(_ACC),
        rate=shown[id(one)][_RATE],
        rate_change=None if is_base else judged[id(one)].get(_RATE),
        frugal_rate=shown[id(frugal)][_RATE] if frugal else None,
        frugal_accuracy=shown[id(frugal)][_ACC] if frugal else None,
        frugal_setting=words_of(frugal.trial.settings) if frugal else "",
        frugal_change=judged[id(frugal)].get(_RATE) if frugal else None,
        frugal_difference=judged[id(frugal)].get(_ACC) if frugal else None,
        at_half=half,
        at_three_quarters=three_quarters,
        passes=float(study.facts["passes_per_step"]),
        ms_per_step=float(np.median(steps)) if steps else None,
        gain=gain,
        energy=_mean(energies) if energies else None,
        best_of=best_of([trial.score for trial in study.trials if trial.status != "missing"]),
        hardware=", ".join(sorted({run.result["hardware"] for run in one.runs})),
        rank=None,
        wins=None if is_base or not accuracy else _wins(accuracy, base.values(_ACC)),
    )


def _mean(values: Mapping[int, float]) -> float:
    return math.fsum(values.values()) / len(values)


def _wins(own: Mapping[int, float], base: Mapping[int, float]) -> float:
    """Probability of improvement: over all pairs of a final run and one of the baseline's (Bouthillier et al. 2021)."""
    pairs = [(a > b) + 0.5 * (a == b) for a in own.values() for b in base.values()]
    return math.fsum(pairs) / len(pairs)


def _at(trials: Iterable[Trial], rate: float) -> float | None:
    """Validation accuracy at a spike rate, between the trials that no other beats; None below the cheapest."""
    known = [
        (trial.val_spike_rate, trial.score)
        for trial in trials
        if trial.status == "finished" and trial.val_spike_rate is not None
    ]
    front = pareto([cost for cost, _ in known], [score for _, score in known])
    if not front or rate < known[front[0]][0]:
        return None
    costs, scores = zip(*(known[place] for place in front), strict=True)
    return float(np.interp(rate, costs, scores))


def best_of(scores: Sequence[float]) -> tuple[float, ...]:
    """Expected best of n trials drawn from those run without replacement, n = 1, 2, ... (Dodge et al. 2019; Tang et al.
    2020): sum over the i-th smallest of its value times C(i - 1, n - 1) / C(B, n).

    Args:
        scores: of all B trials.
    """
    ordered, count = sorted(scores), len(scores)
    return tuple(
        math.fsum(value * math.comb(place, n - 1) for place, value in enumerate(ordered)) / math.comb(count, n)
        for n in range(1, count + 1)
    )


def _ranked(entries: list[Entry], by_study: Mapping[int, Mapping[str, _Choice]]) -> list[Entry]:
    """The entries with their ranks, where all of a ruleset have enough seeds."""
    runs = {(own[name].study.label, name): own[name] for own in by_study.values() for name in own}
    placed: dict[tuple[str, str], Rank] = {}
    for ruleset in (ACCURATE, DEFAULT):
        able = [entry for entry in entries if entry.ruleset == ruleset and entry.complete]
        able = [entry for entry in able if entry.seeds + entry.diverged >= RANKED_FROM]
        scores = {
            entry.method: {
                run.seed: run.number(_ACC) if run.finished else None for run in runs[entry.method, ruleset].runs
            }
            for entry in able
        }
        placed |= {(method, ruleset): rank for method, rank in ranks(scores).items()}
    return [
        replace(entry, rank=placed[entry.method, entry.ruleset].rank)
        if (entry.method, entry.ruleset) in placed
        else entry
        for entry in entries
    ]


def _overall(
    found: Sequence[Study], boards: Sequence[Board], by_id: Mapping[str, StoredRun]
) -> list[tuple[str, float, float, float]]:
    """Interquartile mean of the normalized gains, with a bootstrap over seeds within each workload."""
    from scipy.stats import trim_mean  # type: ignore[import-untyped]

    if len(boards) < 2:
        return []
    workloads = [board.workload for board in boards]
    values: dict[str, dict[str, np.ndarray]] = {}
    for study in found:
        choice = study.facts["choices"].get(ACCURATE)
        runs = [by_id[run] for run in choice["runs"] if run in by_id] if choice else []
        numbers = [run.number(_ACC) for run in runs if run.finished]
        if numbers and None not in numbers:
            values.setdefault(study.label, {})[study.facts["workload"]] = np.array(numbers, dtype=np.float64)
    base = values.get(BASE, {})
    generator = np.random.default_rng(0)
    rows = []
    for method, own in values.items():
        complete = all(
            any(e.method == method and e.ruleset == ACCURATE and e.complete for e in board.entries) for board in boards
        )
        if method == BASE or not complete or any(workload not in own for workload in workloads):
            continue

        def gains(draw: bool, own: Mapping[str, np.ndarray] = own) -> np.ndarray:
            parts = []
            for workload in workloads:
                ours, theirs = own[workload], base[workload]
                if draw:
                    ours, theirs = (generator.choice(x, len(x)) for x in (ours, theirs))
                parts.append((ours - theirs.mean()) / (100 - theirs.mean()))
            return np.concatenate(parts)

        resampled = [float(trim_mean(gains(True), 0.25)) for _ in range(RESAMPLES)]
        low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        rows.append((method, float(trim_mean(gains(False), 0.25)), float(low), float(high)))
    return sorted(rows, key=lambda row: -row[1])
