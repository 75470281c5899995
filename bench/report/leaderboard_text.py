"""A workload's answer in one sentence, and its ranked table as texts: for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.report.contrasts import Contrast
from bench.report.leaderboard import Board, Entry
from bench.report.stats import Estimate
from bench.report.twins import Twin
from bench.report.words import ACCURACY, RATE

NONE = "none"
TOLERANCE = 1.0
"""Points of mean accuracy that a cut of the spikes may cost and still be called one at no visible loss."""
_BETTER, _WORSE, _ALIKE = "better", "worse", "alike"


class Column(NamedTuple):
    """A column of the ranked table.

    Attributes:
        heading: its head.
        says: what it means, in a sentence.
    """

    heading: str
    says: str


_COLUMNS = (
    Column("rank", "By accuracy of the retrained runs, from 5 seeds on."),
    Column("method", "The regularizer; none is the baseline."),
    Column("accuracy (%)", "Test accuracy of the retrained runs: mean over seeds, with its 95 % interval."),
    Column("vs none (points)", "Accuracy against none's, with the interval that decides, and the verdict."),
    Column("spike rate", "Spikes / (neurons x time steps x images) of the same runs."),
    Column("spikes vs none", "The spike rate against none's, with the interval that decides, and the verdict."),
    Column("fewest spikes within 1 point", "The second choice: the trial with the fewest spikes whose validation "
           "accuracy was within 1 point of none's, retrained: spikes, and accuracy, against none."),
    Column("accuracy at 3/4 | 1/2 of the spikes", "Best validation accuracy of a trial with at most so much of none's "
           "spike rate."),
    Column("gain of tuning (points)", "Accuracy of the tuned setting minus that of the authors' values."),
    Column("cost: passes | ms a step", "Forward and backward passes, and milliseconds, of a training step "
           "in the retrained runs, beside whatever else ran on the machine: `bench speed` measures it alone."),
    Column("energy (µJ)", "Of one image: compute alone, at 45 nm; in brackets the share of what the same network "
           "spends with ReLU in place of its neurons, where somebody ran that."),
    Column("n", "Seeds of the retrained runs, and trials of the search."),
)  # fmt: skip


def about() -> list[tuple[str, str]]:
    """Each column's heading and what it means."""
    return [(column.heading, column.says) for column in _COLUMNS]


def columns() -> list[str]:
    """The headings of the ranked table."""
    return [column.heading for column in _COLUMNS]


def rows(board: Board) -> list[list[str]]:
    """The cells of the ranked table, a row for each of the board's entries, in their order."""
    return [_row(entry, board.twin) for entry in board.entries]


_BRIEF = ("method", "accuracy (%)", "vs none (points)", "spikes vs none", "fewest spikes within 1 point")


def brief_columns() -> list[str]:
    """The headings of the short table."""
    return [*_BRIEF]


def brief(board: Board) -> list[list[str]]:
    """The cells of the short table: of the tuned entries that are complete, what each buys for how many spikes."""
    places = [columns().index(heading) for heading in _BRIEF]
    shown = [entry for entry in board.entries if entry.complete and entry.ruleset == "tuned"]
    return [[_row(entry, board.twin)[place] for place in places] for entry in shown]


def _row(entry: Entry, twin: Twin | None) -> list[str]:
    name = f"`{entry.method}`" + (" (authors' values)" if entry.ruleset == "default" else "")
    seeds = f"{entry.seeds} seed{'s' * (entry.seeds != 1)}" + (f", {entry.diverged} diverged" * bool(entry.diverged))
    searched = entry.trials and entry.ruleset == "tuned"
    trials = f", {entry.trials} trial{'s' * (entry.trials != 1)}" if searched else ""
    steps = "-" if entry.ms_per_step is None else f"{entry.ms_per_step:.1f}"
    fixed = "baseline" if entry.method == NONE and entry.ruleset == "tuned" else "-"
    return [
        "-" if entry.rank is None else f"{entry.rank:g}",
        name if entry.complete else f"{name} incomplete: {entry.why}",
        _estimate(entry.accuracy, ACCURACY.digits),
        fixed if entry.difference is None else points_text(entry.difference),
        _estimate(entry.rate, RATE.digits),
        fixed if entry.rate_change is None else percent_text(entry.rate_change),
        _frugal(entry),
        " | ".join("-" if value is None else f"{value:.1f}" for value in (entry.at_three_quarters, entry.at_half)),
        "-" if entry.gain is None else f"{_signed(entry.gain, 2)}",
        f"{entry.passes:g} | {steps}",
        "-" if entry.energy is None else f"{entry.energy:.2f}" + _beside(entry.energy, twin),
        seeds + trials,
    ]


def _estimate(estimate: Estimate | None, digits: int) -> str:
    if estimate is None:
        return "-"
    text = f"{estimate.mean:.{digits}f}"
    if estimate.low is not None and estimate.high is not None:
        text += f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return text


def _beside(energy: float, twin: Twin | None) -> str:
    return f" [{100 * energy / twin.energy:.0f} %]" if twin else ""


def _frugal(entry: Entry) -> str:
    if entry.frugal_change is None:
        return "-"
    change = _percent(entry.frugal_change.difference)
    text = f"**{change}** spikes" if str(entry.frugal_change.verdict) in (_BETTER, _WORSE) else f"{change} spikes"
    if entry.frugal_difference is not None:
        text += f", {_signed(entry.frugal_difference.difference, 2)} points"
    return text


def points_text(contrast: Contrast) -> str:
    """A difference of accuracies with its interval and its verdict."""
    interval = ""
    if contrast.low is not None and contrast.high is not None:
        interval = f" [{_signed(contrast.low, 2)}, {_signed(contrast.high, 2)}]"
    return f"{_signed(contrast.difference, 2)}{interval} {_bold(contrast)}"


def percent_text(contrast: Contrast) -> str:
    """A change in percent with its interval and its verdict."""
    interval = ""
    if contrast.low is not None and contrast.high is not None:
        interval = f" [{100 * contrast.low:+.0f}, {100 * contrast.high:+.0f}]"
    return f"{_percent(contrast.difference)}{interval} {_bold(contrast)}"


def _bold(contrast: Contrast) -> str:
    verdict = str(contrast.verdict)
    return f"**{verdict}**" if verdict in (_BETTER, _WORSE) else verdict


def _signed(value: float, digits: int) -> str:
    # What rounds to 0 from below has no sign.
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _percent(share: float) -> str:
    return f"{round(100 * share) + 0:+d} %"


class _Cut(NamedTuple):
    """Fewer spikes, and the accuracy that they come with."""

    method: str
    spikes: Contrast
    accuracy: Contrast


def sentence(board: Board) -> str:
    """What the verdicts of a workload support, in one sentence: spikes first, then accuracy, then what it rests on.

    Complete tuned entries count; where there are none, all complete ones. A cut of the spikes is told where its verdict
    is better, the accuracy's is not worse, and the mean accuracy is at most 1 point below none's.
    """
    complete = [entry for entry in board.entries if entry.complete and entry.method != NONE]
    complete = [entry for entry in complete if entry.ruleset == "tuned"] or complete
    where = f"On {_inside(board.title)}"
    if not complete or all(entry.difference is None for entry in complete):
        missing = ", ".join(f"`{entry.method}`: {entry.why}" for entry in board.entries if not entry.complete)
        return f"{where}, no method can be compared yet" + (f" ({missing})." if missing else ".")
    seeds = _range([entry.seeds for entry in complete], "seed")
    known = [contrast for entry in complete for contrast in (entry.difference, entry.rate_change) if contrast]
    if all(str(contrast.verdict) not in (_BETTER, _WORSE, _ALIKE) for contrast in known):
        return f"{where}, {seeds} are too few to say of any method what it does{_largest(complete)}{_rests(complete)}."
    return f"{where}, {_spikes(complete, seeds)}; {_accuracy(complete, seeds)}{_rests(complete)}."


def _inside(title: str) -> str:
    """A title inside a sentence: `Small MNIST` begins small, `MNIST` and `CIFAR-10` keep their capitals."""
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def _range(counts: Sequence[int], noun: str) -> str:
    low, high = min(counts), max(counts)
    return (f"{high}" if low == high else f"{low} to {high}") + f" {noun}{'s' * (high != 1)}"


def _rests(entries: Sequence[Entry]) -> str:
    trials = [entry.trials for entry in entries]
    tuned = f"{_range(trials, 'trial')} and " if max(trials) else ""
    seeds = _range([entry.seeds for entry in entries], "seed")
    count = f"{len(entries)} {'method' if tuned else 'setting'}{'s' * (len(entries) != 1)}"
    return f" ({count}, {tuned}{seeds} each)"


def _largest(entries: Sequence[Entry]) -> str:
    """The largest differences, where none can be told from chance."""
    changes = [(entry.rate_change.difference, entry.method) for entry in entries if entry.rate_change]
    gains = [(entry.difference.difference, entry.method) for entry in entries if entry.difference]
    parts = [f"`{min(changes)[1]}` {_percent(min(changes)[0])} spikes"] if changes else []
    parts += [f"`{max(gains)[1]}` {_signed(max(gains)[0], 1)} points of accuracy"] if gains else []
    return f"; the largest differences are {' and '.join(parts)}" if parts else ""


def _spikes(entries: Sequence[Entry], seeds: str) -> str:
    pairs = [
        _Cut(entry.method, spikes, accuracy)
        for entry in entries
        for spikes, accuracy in (
            (entry.frugal_change, entry.frugal_difference),
            (entry.rate_change, entry.difference),
        )
        if spikes is not None and accuracy is not None
    ]
    fewer = [cut for cut in pairs if str(cut.spikes.verdict) == _BETTER]
    good = [
        cut for cut in fewer if str(cut.accuracy.verdict) != _WORSE and cut.accuracy.difference >= -TOLERANCE
    ]  # fmt: skip
    if good:
        best = min(good, key=lambda cut: cut.spikes.difference)
        change = _signed(best.accuracy.difference, 1)
        how = {
            _BETTER: f"and raises accuracy by {abs(best.accuracy.difference):.1f} points",
            _ALIKE: f"at the same accuracy ({change} points)",
        }.get(str(best.accuracy.verdict), f"at no loss of accuracy that {seeds} can see ({change} points)")
        return f"`{best.method}` cuts spikes by {-100 * best.spikes.difference:.0f} % {how}"
    if fewer:
        least = max(fewer, key=lambda cut: cut.accuracy.difference)
        return (
            f"nothing cuts spikes for free: `{least.method}` saves {-100 * least.spikes.difference:.0f} % of them for "
            f"{_signed(least.accuracy.difference, 1)} points of accuracy"
        )
    return f"nothing cuts spikes by anything that {seeds} can see"


def _accuracy(entries: Sequence[Entry], seeds: str) -> str:
    known = [(entry.method, entry.difference) for entry in entries if entry.difference is not None]
    method, best = max(known, key=lambda pair: pair[1].difference)
    better = [(method, contrast) for method, contrast in known if str(contrast.verdict) == _BETTER]
    if better:
        method, best = max(better, key=lambda pair: pair[1].difference)
        return f"`{method}` raises accuracy most, by {abs(best.difference):.1f} points{_between(best)}"
    highest = [contrast.high for _, contrast in known]
    bound = max((high for high in highest if high is not None), default=None)
    if bound is not None and None not in highest and bound <= TOLERANCE:
        return f"nothing raises accuracy by more than {max(bound, 0.0):.1f} points"
    if best.difference <= 0:
        return f"nothing raises accuracy by anything that {seeds} can see"
    return (
        f"nothing raises accuracy by anything that {seeds} can see (`{method}` comes highest: "
        f"{_signed(best.difference, 1)} points{_between(best)})"
    )


def _between(contrast: Contrast) -> str:
    if contrast.low is None or contrast.high is None:
        return ""
    return f" [{_signed(contrast.low, 1)}, {_signed(contrast.high, 1)}]"
