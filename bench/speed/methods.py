"""`bench speed reg=...`: sets of regularizers beside none on one network, and what SpikingJelly's users write for them.

Every arm of every round is a fresh process, forked from one that has imported everything, and the arms alternate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.config.component import component_name
from bench.config.compose import compose_all
from bench.console import say
from bench.errors import BenchError
from bench.registry import MODELS
from bench.speed.crew import Crew
from bench.speed.peers import NETWORKS, check_parity
from bench.speed.settings import BASELINE, WAYS_OF, Settings
from bench.speed.summary import busy_notes, circumstances, data_notes, spread

NONE = "none"
LONGER = 4
"""How many times as many time steps memory is measured at too, where potentials are read."""

ONE_PASS, POTENTIALS = 0.9, 0.6
"""Shares of the pace of none that are aimed at: a pass that draws masks or reads counts, one that reads potentials."""

Work = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Arm:
    """A set of regularizers, ours or SpikingJelly's way of it.

    Attributes:
        label: its names, joined by `+`.
        peer: whether it is SpikingJelly's.
    """

    label: str
    peer: bool = False

    def __str__(self) -> str:
        return f"{WAYS_OF}: {self.label}" if self.peer else self.label


Round = dict[Arm, dict[str, Any]]
"""What the worker measured, by arm."""


def goal(facts: Mapping[str, Any]) -> float:
    """The share of the pace of none that is aimed at, of a set whose passes cost as much as one of none each.

    Args:
        facts: of the worker's `takes`.
    """
    return (POTENTIALS if facts["reads_potential"] else ONE_PASS) / facts["passes_per_step"]


def compare(asked: Settings) -> dict[str, Any]:
    """Measure all sets of regularizers, round by round.

    Returns:
        env, methods and peers, as the JSON file holds them.

    Raises:
        BenchError: bad input, or a set that was named and that the network cannot take.
        EnvironmentFault: a worker died, or the machine could not do it.
    """
    # All of them, so that a mistake is told before anything is measured.
    cfg = compose_all(asked.of_method(method) for method in (BASELINE, *asked.methods))[0]
    model = component_name(MODELS, cfg.model)
    if MODELS.get(model).learning != "gradient":
        raise BenchError(f"model={model} learns without gradients: `bench run` says how many images/s it takes")
    notes = busy_notes()
    peers = asked.peers if model in NETWORKS else ()
    if asked.peers and not peers:
        notes.append(f"SpikingJelly is left out: it has no {model} here, but {', '.join(sorted(NETWORKS))}")
    with Crew() as crew:
        overview = crew.work(job(asked, BASELINE, "overview", peers=list(peers)))
        check_parity(overview["parity_max_abs"])
        notes += data_notes(cfg, overview)
        for line in notes:
            say(line)
        measured = sitting(asked, overview, crew.work, cfg.time_steps)
    env = circumstances(cfg, asked, overview, peers) | {"parity_max_abs": overview["parity_max_abs"]}
    return measured.summary(env, notes)


def job(asked: Settings, method: Sequence[str], name: str, extra: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    """What the worker is asked for.

    Args:
        asked: the settings.
        method: the set of regularizers.
        name: of the job.
        extra: overrides beyond the run's.
        more: entries of the job.
    """
    overrides = [*asked.of_method(method), *extra]
    return {"job": name, "overrides": overrides, "seconds": asked.seconds, "steps": asked.steps, **more}


@dataclass
class Sitting:
    """All that was measured in one sitting.

    Attributes:
        facts: of the sets that the network takes, by label.
        left_out: why it does not take the others.
        rounds: what the arms did, in turn.
        longer: what they took at more time steps, and how many these were.
        time_steps: T of the rounds.
    """

    facts: dict[str, dict[str, Any]]
    left_out: dict[str, str]
    rounds: list[Round]
    longer: tuple[int, Round]
    time_steps: int

    def summary(self, env: dict[str, Any], notes: list[str]) -> dict[str, Any]:
        """As the JSON file holds it.

        Args:
            env: what it was measured on.
            notes: lines for the reader.
        """
        arms = list(self.rounds[0])
        noted = {f"{arm}: {line}": None for turn in self.rounds for arm in arms for line in turn[arm]["notes"]}
        return {
            "env": {**env, "left_out": self.left_out, "notes": [*notes, *noted]},
            "methods": [self.row(arm) for arm in arms if not arm.peer],
            "peers": [self.row(arm) for arm in arms if arm.peer],
        }

    def row(self, arm: Arm) -> dict[str, Any]:
        """One arm: shares are of the baseline of its own package, in the same round."""
        none = Arm(NONE, arm.peer)
        paces = [turn[arm]["images_per_s"] for turn in self.rounds]
        row: dict[str, Any] = {
            "name": arm.label,
            "images_per_s": spread(paces),
            "rounds": paces,
            "of_none": spread([turn[arm]["images_per_s"] / turn[none]["images_per_s"] for turn in self.rounds]),
            "first_step_s": max(turn[arm]["first_step_s"] for turn in self.rounds),
            "saved_bytes_for_backward": self.rounds[0][arm]["saved_bytes_for_backward"],
            "memory": self.memory(arm),
        }
        if arm.peer:
            ours = [turn[Arm(arm.label)]["images_per_s"] for turn in self.rounds]
            ratio = spread([mine / theirs for mine, theirs in zip(ours, paces, strict=True)])
            return row | {"package": WAYS_OF, "bench_is": ratio}
        facts = self.facts[arm.label]
        row |= {key: facts[key] for key in ("passes_per_step", "reads_potential")}
        return row | {"goal": None if arm.label == NONE else goal(facts)}

    def memory(self, arm: Arm) -> dict[str, dict[str, Any]]:
        """What training takes, by time steps: at its peak, beyond what was there before, and beside others."""
        taken = {str(self.time_steps): [turn for turn in self.rounds if arm in turn]}
        steps, longer = self.longer
        if arm in longer:
            taken[str(steps)] = [longer]
        rows = {}
        for key, turns in taken.items():
            own = most(turns, arm, "step_memory_bytes")
            rows[key] = {
                "peak_memory_bytes": most(turns, arm, "peak_memory_bytes"),
                "step_memory_bytes": own,
                "of_none": share(own, most(turns, Arm(NONE, arm.peer), "step_memory_bytes")),
            }
            if arm.peer and all(Arm(arm.label) in turn for turn in turns):
                rows[key]["bench_takes"] = share(most(turns, Arm(arm.label), "step_memory_bytes"), own)
        return rows


def most(turns: Sequence[Round], arm: Arm, key: str) -> int:
    """The largest of an arm's numbers over rounds."""
    return max(int(turn[arm][key]) for turn in turns)


def share(part: int, whole: int) -> float | None:
    """A ratio; None of nothing."""
    return part / whole if whole else None


def sitting(asked: Settings, overview: dict[str, Any], work: Work, time_steps: int) -> Sitting:
    """Find out what the network takes, and measure that.

    Args:
        asked: the settings.
        overview: the worker's.
        work: does a job in a process of its own.
        time_steps: of the run.

    Raises:
        BenchError: the network cannot take a set that was named.
        EnvironmentFault: the machine could not do it.
    """
    sets = {"+".join(method): method for method in asked.methods}
    facts, left_out = {}, dict[str, str]()

    def attempt(label: str, name: str, extra: Sequence[str] = (), **more: Any) -> dict[str, Any] | None:
        try:
            return work(job(asked, sets[label], name, extra, **more))
        except BenchError as error:  # or, of a set that is too large for this machine, an EnvironmentFault
            if not asked.every or len(sets[label]) > 1 or label == NONE:
                raise
            left_out[label] = str(error)
            say(f"{label} is left out: {error}")
            return None

    for label in sets:
        found = attempt(label, "takes")
        if found is not None:
            facts[label] = found
    arms = [Arm(label) for label in facts]
    if asked.peers and overview["parity_max_abs"]:
        arms += [Arm(label, peer=True) for label in facts if facts[label]["way"]]
    beside = sum(arm.peer for arm in arms)
    say(f"{overview['hardware']}: {asked.rounds} rounds of {len(arms) - beside} arms, and {beside} of SpikingJelly's")
    rounds: list[Round] = []
    for turn in range(1, asked.rounds + 1):
        results: Round = {}
        for arm in [arm for arm in arms if arm.label not in left_out]:
            result = attempt(arm.label, "method", peer=arm.peer)
            if result is not None:
                results[arm] = result
                base = results[Arm(NONE, arm.peer)]["images_per_s"]
                told = f"{result['images_per_s']:>10,.1f} img/s  {result['images_per_s'] / base:.2f} of none"
                say(f"round {turn}/{asked.rounds}  {arm!s:<32}{told}")
        rounds.append(results)
    kept = [arm for arm in arms if arm.label not in left_out]
    rounds = [{arm: turn[arm] for arm in kept} for turn in rounds]
    facts = {label: found for label, found in facts.items() if label not in left_out}
    steps, longer = LONGER * time_steps, Round()
    if any(found["reads_potential"] for found in facts.values()):
        for arm in kept:
            if arm.label != NONE and not (facts[arm.label]["reads_potential"] and Arm(NONE, arm.peer) in longer):
                continue
            longest = job(asked, sets[arm.label], "method", [f"time_steps={steps}"], peer=arm.peer) | {"steps": 2}
            try:
                longer[arm] = work(longest)
            except BenchError as error:  # as a rule for want of memory: the rounds stand without it
                say(f"T = {steps}  {arm!s:<32}not measured: {error}")
            else:
                say(f"T = {steps}  {arm!s:<32}{longer[arm]['step_memory_bytes'] / 2**20:>10,.0f} MiB")
    return Sitting(facts, left_out, rounds, (steps, longer), time_steps)
