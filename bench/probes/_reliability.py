"""Whether white-box attacks can be believed: the signs of masked gradients, as a pure function of who was fooled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from scipy.stats import binom  # type: ignore[import-untyped]
from torch import Tensor

LEVEL = 0.05
Name = TypeVar("Name", bound=str)


def chance_of(fewer: Tensor, more: Tensor) -> float:
    """How likely chance alone makes an attack fool so many more images than another: McNemar's test, one-sided, exact.

    Of the images that just one of the two fools, each attack would fool half.

    Source: McNemar 1947 (Psychometrika 12, 153-157), in its exact form by the binomial distribution.

    Args:
        fewer: images that are right under the attack that is asked about, bool `[M]`.
        more: those that are under the other.

    Returns:
        1 where the two fool the same images.
    """
    alone, other = int((more & ~fewer).sum()), int((fewer & ~more).sum())
    return float(binom.sf(alone - 1, alone + other, 0.5))


def doubts(right: Mapping[float, Mapping[Name, Tensor]], black_box: Collection[Name], classes: int) -> list[str] | None:
    """What speaks against the accuracies under white-box attacks: each reason in a line.

    - A black-box attack leaves a lower accuracy than the strongest white-box attack of that radius, by more than chance
      (`chance_of` at 5 %, shared between all such comparisons): gradients that lead astray are masked.
    - Accuracy under the strongest white-box attack is no lower at the largest radius than at the smallest, and above
      that of guessing; or it rises from one radius to the next by more than chance (5 %, shared likewise): larger balls
      hold the smaller ones.

    Source: the first as AutoAttack's check and RobustBench's flag (Croce et al. 2021, arXiv 2010.09670), which ask for
    0.2 points; the second of Carlini et al. 2019 (arXiv 1902.06705). The tests are this suite's.

    Args:
        right: radius -> attack -> which images are right, bool `[M]`.
        black_box: the attacks that follow no gradient.
        classes: how many, of which guessing finds the right one.

    Returns:
        None where there is nothing to compare: no white-box attack, or neither a black-box attack nor a second radius.
    """
    strongest: dict[float, tuple[Name, Tensor]] = {}
    pairs: list[tuple[float, Name]] = []
    for eps in sorted(eps for eps in right if eps > 0):
        white = {name: own for name, own in right[eps].items() if name not in black_box}
        if white:
            strongest[eps] = min(white.items(), key=lambda item: int(item[1].sum()))
            pairs += [(eps, name) for name in right[eps] if name in black_box]
    radii = list(strongest)
    if not radii or (not pairs and len(radii) < 2):
        return None
    found = []
    for eps, name in pairs:
        (rival, theirs), own = strongest[eps], right[eps][name]
        if chance_of(own, theirs) < LEVEL / len(pairs):
            found.append(
                f"at eps {eps:.4g} {name}, which follows no gradient, leaves {percent(own)}, and {rival}, the "
                f"strongest attack that follows one, {percent(theirs)}"
            )
    return found + _not_falling(radii, [strongest[eps][1] for eps in radii], 1 / classes)


def _not_falling(radii: Sequence[float], rights: Sequence[Tensor], guessing: float) -> list[str]:
    found = []
    first, last = rights[0], rights[-1]
    if len(radii) > 1 and int(last.sum()) >= int(first.sum()) and float(last.double().mean()) > guessing:
        found.append(
            f"accuracy does not fall from eps {radii[0]:.4g}, {percent(first)}, to eps {radii[-1]:.4g}, {percent(last)}"
        )
    steps = list(zip(radii, rights, radii[1:], rights[1:], strict=False))
    for small, inner, large, outer in steps:
        if chance_of(inner, outer) < LEVEL / len(steps):
            found.append(f"accuracy rises from eps {small:.4g}, {percent(inner)}, to eps {large:.4g}, {percent(outer)}")
    return found


def percent(right: Tensor) -> str:
    """The share that is right, as a text."""
    return f"{100 * float(right.double().mean()):.4g} %"
