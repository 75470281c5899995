"""Which hidden neurons matter most, and whether another training from the same start agrees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from scipy.stats import kendalltau  # type: ignore[import-untyped]
from torch.nn import functional as F

from bench.config.compose import read_config
from bench.errors import BenchError
from bench.files import read_json
from bench.neurons import Read
from bench.probes.base import Outcome, Probe, Say, Subject
from bench.ranges import Numbers
from bench.records.identity import science
from bench.registry import PROBES

SETTINGS = Numbers("ranking.")


def order(importance: Sequence[float]) -> list[int]:
    """Neurons from the most important to the least; equal ones by their number."""
    return sorted(range(len(importance)), key=lambda neuron: -importance[neuron])


def top_overlap(a: Sequence[int], b: Sequence[int], depth: int) -> float:
    """Share of the first `depth` of one ranking that is among the first `depth` of the other."""
    return len(set(a[:depth]) & set(b[:depth])) / depth


def rank_biased_overlap(a: Sequence[int], b: Sequence[int], persistence: float) -> float:
    """Agreement of two rankings of the same things, in (0, 1], where the first ranks count most.

    Source: Webber, Moffat & Zobel 2010 (ACM TOIS 28(4), 20), eq. 32: with X_d the overlap of the first d,
    X_n / n p^n + (1 - p) / p sum_d X_d / d p^d.

    Args:
        a: one ranking.
        b: the other.
        persistence: p in (0, 1); rank d weighs about p^d, so that 0.9 gives the first ten 86 % of the weight.
    """
    seen_a: set[int] = set()
    seen_b: set[int] = set()
    shares = []
    for depth, (first, second) in enumerate(zip(a, b, strict=True), start=1):
        seen_a.add(first)
        seen_b.add(second)
        shares.append(len(seen_a & seen_b) / depth)
    weights = persistence ** np.arange(1, len(shares) + 1)
    return float(shares[-1] * weights[-1] + (1 - persistence) / persistence * np.dot(shares, weights))


def agreement(a: Sequence[float], b: Sequence[float], tops: Sequence[int], persistence: float) -> dict[str, Any]:
    """How alike two importances of the same neurons are: top overlaps, Kendall's tau-b, rank-biased overlap.

    Args:
        a: importance of each neuron in one network.
        b: in the other.
        tops: depths of the overlaps.
        persistence: of `rank_biased_overlap`.
    """
    ranks_a, ranks_b = order(a), order(b)
    tau = float(kendalltau(a, b, variant="b").statistic)
    return {
        **{f"top_{depth}": top_overlap(ranks_a, ranks_b, depth) for depth in tops},
        # Of neurons that are all equally important there is no ranking.
        "tau_b": None if np.isnan(tau) else tau,
        "rbo": rank_biased_overlap(ranks_a, ranks_b, persistence),
    }


@torch.no_grad()
def importances(subject: Subject, images: int) -> dict[str, list[float]]:
    """Importance of each neuron of the spiking layer that the head reads, by three definitions.

    Args:
        subject: the network.
        images: test images to measure on, at most.

    Returns:
        `weight`: sum of the absolute weights that leave it. `rate`: the same times its spikes per image. `ablation`:
        how much the loss rises when it is silenced.

    Raises:
        BenchError: the head reads no fully connected spiking layer.
    """
    model = subject.task.model
    emitted: Any = 0.0
    losses: Any = 0.0
    count = 0
    for x, y in subject.batches(*subject.test_images(images)):
        with subject.autocast():
            features, activity = subject.task.forward_t(x, frozenset({Read.neuron_counts}))
        fired = list(activity.values())[-1].neuron_counts
        neurons = fired.shape[-1]
        if fired.ndim != 2 or features.shape[-1] % neurons:
            raise BenchError(
                "probe=ranking ranks the neurons of a fully connected spiking layer in front of the read-out, as mlp "
                "and srm have; this network's read-out sees something else"
            )
        # In float32 whatever the run's precision: a neuron's share of the loss may be small.
        exact = features.float()
        synapses = exact.shape[-1] // neurons
        summed = [F.cross_entropy(model.logits(exact), y, reduction="sum")]
        for neuron in range(neurons):
            silenced = exact.clone()
            silenced[..., neuron * synapses : (neuron + 1) * synapses] = 0
            summed.append(F.cross_entropy(model.logits(silenced), y, reduction="sum"))
        losses = losses + torch.stack(summed).double()
        emitted = emitted + fired.sum(0, dtype=torch.float64)
        count += len(x)
        model.forget()
    weight = model.head.weight.double().abs().sum(0).unflatten(0, (neurons, -1)).sum(1)
    return {
        "weight": weight.tolist(),
        "rate": (weight * emitted / count).tolist(),
        "ablation": ((losses[1:] - losses[0]) / count).tolist(),
    }


def training(cfg: DictConfig) -> tuple[dict[str, Any], int]:
    """What two runs must share for their neurons' numbers to mean the same: all settings but regularizers and the seed,
    which draws what comes after the start; and the seed of the start."""
    # The data are the same file for both: their checksum would only have to be looked up.
    facts = science(cfg, ("", ""), auto="auto")
    facts["plugins"] = {kind: own for kind, own in (facts["plugins"] or {}).items() if kind != "reg"}
    start = facts["seed"] if facts["init_seed"] is None else facts["init_seed"]
    return {key: value for key, value in facts.items() if key not in ("reg", "seed", "init_seed")}, start


@PROBES.register("ranking")
class RankingProbe(Probe):
    """Ranking of the hidden neurons by importance, and its agreement with runs without a regularizer from one start.

    Neurons' numbers mean the same in two runs only if both start from the same weights: runs of one seed, or of several
    under one `init_seed`. The probed run is compared with all finished ones in its folder that share all settings but
    regularizer and seed, and whose regularizer is `against`. For a run without a regularizer these are the null: two
    trainings that differ in what their seeds draw, the order of the batches, augmentation, and the images where only
    a part of the training set is taken. What a regularizer does shows in how far its agreement lies below the null's,
    both from rows of another seed; headlines of two seeds share runs and are not independent.

    Source: lyu2023 (Lyu & Yin), table 2, which shows ten numbers of neurons without and with dropout. The definitions
    of importance, the measures and the null are this suite's.

    Args:
        images: test images for rates and ablation, at most.
        against: regularizers of the runs to compare with, as their records have it.
        top: depths of the overlaps; the paper's are 3 and 10.
        persistence: of rank-biased overlap, in (0, 1).

    Raises:
        BenchError: fewer than 1 image, no depth or one below 1, or a persistence outside (0, 1).
    """

    def __init__(
        self,
        images: int = 1000,
        against: str = "none",
        top: list[int] = [3, 10],  # noqa: B006
        persistence: float = 0.9,
    ) -> None:
        SETTINGS.at_least(1, images=images)
        if not top:
            raise BenchError("ranking.top is [], it needs a depth, as in [3,10]")
        for depth in top:
            SETTINGS.at_least(1, top=depth)
        SETTINGS.check("persistence", persistence, 0 < persistence < 1, "lie between 0 and 1")
        self.images, self.against, self.top, self.persistence = images, against, list(dict.fromkeys(top)), persistence
        self._known: dict[Path, dict[str, list[float]]] = {}

    def measure(self, subject: Subject, say: Say) -> Outcome:
        if not subject.spiking:
            raise BenchError("probe=ranking ranks spiking neurons, and neuron=relu has none")
        others = list(self.others(subject.path))
        own = self.importances_in(subject.path, subject)
        neurons = len(own["weight"])
        for depth in self.top:
            if depth > neurons:
                raise BenchError(f"ranking.top has {depth}, but the network has {neurons} hidden neurons")
        rows = []
        for path, seed, same in others:
            theirs = self.importances_in(path, subject)
            for name, values in own.items():
                alike = agreement(values, theirs[name], self.top, self.persistence)
                rows.append({"against": f"seed {seed}", "order": "same" if same else "other", "by": name, **alike})
            say(f"ranking: against {path.name}, tau-b {', '.join(said(row) for row in rows[-len(own) :])}")
        return Outcome(
            images=min(self.images, subject.splits.test_images),
            rows=rows,
            headline={
                f"{label}, by {name}": mean([row[key] for row in rows if row["by"] == name and row["order"] == "other"])
                for name in own
                for key, label in (*((f"top_{d}", f"top-{d} overlap") for d in self.top), ("tau_b", "tau-b"))
            },
            notes={
                "against": f"runs with reg={self.against} from the same start, by their seed",
                "order": "of the batches: the same seed, or another one",
                "by": "weight: sum of absolute outgoing weights; rate: the same times spikes per image; ablation: rise "
                "of the loss when the neuron is silenced",
                **{f"top_{d}": f"share of the first {d}; by chance {min(d / neurons, 1):.4g}" for d in self.top},
                "tau_b": "Kendall's tau-b over all neurons; by chance 0",
                "rbo": f"rank-biased overlap at p = {self.persistence:g}, ties by number",
                "headline": "means over the runs of another order",
            },
            more={
                "first": {name: order(values)[: max(self.top)] for name, values in own.items()},
                "importance": {name: [float(f"{value:.6g}") for value in values] for name, values in own.items()},
            },
        )

    def importances_in(self, path: Path, subject: Subject) -> dict[str, list[float]]:
        """Importances in a run, once for all runs that are compared with it."""
        if path not in self._known:
            self._known[path] = importances(subject if path == subject.path else subject.other(path), self.images)
        return self._known[path]

    def others(self, path: Path) -> Iterator[tuple[Path, int, bool]]:
        """The runs to compare with: folder, seed, whether their batches come in the same order.

        Raises:
            BenchError: there is none.
        """
        own = read_config(path / "config.yaml")
        shared = training(own)
        matches = 0
        for file in sorted(path.parent.glob(f"{own.data.name}-*/result.json")):
            record = read_json(file)
            if file.parent == path or record["reg"] != self.against or record["status"] != "finished":
                continue
            cfg = read_config(file.parent / "config.yaml")
            if training(cfg) == shared:
                matches += 1
                yield file.parent, cfg.seed, cfg.seed == own.seed
        if not matches:
            raise BenchError(
                f"beside {path.name} lies no finished run with reg={self.against} and the same settings and start, and "
                f"only there neurons have the same numbers; train some with init_seed={shared[1]} and other seeds"
            )


def said(row: dict[str, Any]) -> str:
    """One agreement for a line of progress."""
    return f"{'-' if row['tau_b'] is None else format(row['tau_b'], '.3f')} by {row['by']}"


def mean(values: Sequence[float | None]) -> float | None:
    """Of what was measured; None of nothing."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
