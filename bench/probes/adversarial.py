"""Accuracy and spike rate under attacks on the image: FGSM, PGD, AutoAttack."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.probes._attacks import fgsm, pgd
from bench.probes.base import Outcome, Probe, Say, Subject
from bench.ranges import Numbers
from bench.registry import PROBES
from bench.seeds import derive, generator

GREY = (0.05, 0.1, 0.2, 0.3)  # 0.3 is what MNIST is attacked with (Madry et al. 2018)
COLOUR = (2 / 255, 4 / 255, 8 / 255, 16 / 255)  # 8/255 is CIFAR's
TARGETS = 9  # of AutoAttack's targeted parts

SETTINGS = Numbers("adversarial.")
RADII = Numbers("adversarial.", "{key} has {value}, it must {wanted}")


class Attack(StrEnum):
    """`fgsm`, `pgd`, or `autoattack`, which needs the extra `robust`."""

    fgsm = "fgsm"
    pgd = "pgd"
    autoattack = "autoattack"


@PROBES.register("adversarial")
class AdversarialProbe(Probe):
    """Accuracy under attacks within a ball around each test image, and what they do to the spike rate.

    Gradients reach the image through the surrogates of all spiking layers, and through Poisson inputs straight. They
    are white-box attacks on the very network that is measured, random numbers of its evaluation included. Where
    surrogate gradients mislead, an accuracy is an upper bound: AutoAttack has a part that needs none.

    Source: FGSM of Goodfellow et al. 2015 (arXiv 1412.6572); PGD of Madry et al. 2018 (arXiv 1706.06083), eq. 2.1;
    AutoAttack of Croce & Hein 2020 (arXiv 2003.01690), standard version.

    Args:
        attacks: some of fgsm, pgd, autoattack.
        eps: radii in the maximum norm, of pixels in [0, 1]; null is 0.05 to 0.3 for grey, 2/255 to 16/255 for colour.
        steps: of PGD.
        step: size of PGD's steps as a share of eps; null is 2.5 / steps.
        images: test images, class-balanced; AutoAttack takes hours for thousands.

    Raises:
        BenchError: no attack, one twice, an eps outside [0, 1], or fewer than one step or image.
    """

    def __init__(
        self,
        attacks: list[Attack] = [Attack.fgsm, Attack.pgd],  # noqa: B006
        eps: list[float] | None = None,
        steps: int = 10,
        step: float | None = None,
        images: int = 500,
    ) -> None:
        SETTINGS.at_least(1, steps=steps, images=images)
        if not attacks or len(set(attacks)) < len(attacks):
            raise BenchError(f"adversarial.attacks=[{','.join(attacks)}] must name one or more attacks, each once")
        for radius in eps or ():
            RADII.within("[0, 1]", ": pixels are in that range", eps=radius)
        if eps is not None and not eps:
            raise BenchError("adversarial.eps is [], it needs a radius")
        SETTINGS.above(0, step=step)
        self.attacks, self.eps = [Attack(attack) for attack in attacks], eps
        self.steps, self.step, self.images = steps, 2.5 / steps if step is None else step, images

    def measure(self, subject: Subject, say: Say) -> Outcome:
        if Attack.autoattack in self.attacks:
            check_autoattack(subject)
        images, labels = subject.test_images(self.images)
        images = images.float()
        radii = self.eps if self.eps is not None else list(COLOUR if images.shape[1] == 3 else GREY)
        rows = [self.row(subject, "none", 0.0, images, labels)]
        say(f"adversarial: clean, {rows[0]['acc']:.2f} %")
        for attack in self.attacks:
            for eps in radii:
                attacked = torch.cat([
                    ATTACKS[attack](self, subject, x, y, eps, place)
                    for place, (x, y) in enumerate(chunks(images, labels, subject.batch_size))
                ])  # fmt: skip
                rows.append(self.row(subject, attack.value, eps, attacked, labels))
                say(f"adversarial: {attack} eps {eps:.4g}, {rows[-1]['acc']:.2f} %")
        shown = Attack.pgd if Attack.pgd in self.attacks else self.attacks[0]
        headline = {"clean (%)": rows[0]["acc"]}
        headline |= {f"{shown} eps {row['eps']:.4g} (%)": row["acc"] for row in rows if row["attack"] == shown}
        return Outcome(
            images=len(labels),
            rows=rows,
            headline=headline,
            notes={
                "eps": "radius in the maximum norm, pixels in [0, 1] before normalization",
                "acc": "percent of the images still classified right",
                "spike_rate": "spikes / (neurons x time steps x images) on the attacked images",
                "zero_gradient": "percent of the clean images whose gradient is 0 everywhere: these no gradient moves",
            },
            more={"zero_gradient": zero_gradients(subject, images, labels)},
        )

    def row(self, subject: Subject, attack: str, eps: float, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """What the network makes of attacked images, in 0 to 255."""
        summary = subject.measure(images, labels).summary()
        return {
            "attack": attack,
            "eps": eps,
            "acc": summary["acc"],
            "loss": summary["loss"],
            "spike_rate": summary["spike_rate"],
        }

    def fgsm(self, subject: Subject, x: Tensor, y: Tensor, eps: float, place: int) -> Tensor:
        """One step; images in 0 to 255."""
        return fgsm(gradient_of(subject), x, y, 255 * eps, high=255)

    def pgd(self, subject: Subject, x: Tensor, y: Tensor, eps: float, place: int) -> Tensor:
        """From a random start; images in 0 to 255."""
        draw = generator("cpu", subject.seed, "pgd", str(eps), place)
        return pgd(
            gradient_of(subject), x, y, 255 * eps, self.steps, 255 * eps * self.step, draw, high=255
        )  # fmt: skip

    def autoattack(self, subject: Subject, x: Tensor, y: Tensor, eps: float, place: int) -> Tensor:
        """The standard ensemble; images in 0 to 255."""
        from pyautoattack import AutoAttack

        seed = derive(subject.seed, "autoattack", place) % 2**31
        ensemble = AutoAttack(
            Pixels(subject), norm="Linf", eps=eps, version="standard", device=subject.device, seed=seed
        )
        # Fewer classes have fewer targets.
        targets = min(TARGETS, subject.splits.classes - 1)
        ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = targets
        result = ensemble.run_standard_evaluation(x / 255, y, batch_size=subject.batch_size)
        attacked: Tensor = result[0] if isinstance(result, tuple) else result
        return 255 * attacked.cpu()


ATTACKS: dict[Attack, Callable[..., Tensor]] = {
    Attack.fgsm: AdversarialProbe.fgsm,
    Attack.pgd: AdversarialProbe.pgd,
    Attack.autoattack: AdversarialProbe.autoattack,
}


class Pixels(nn.Module):
    """The network as AutoAttack wants it: pixels in [0, 1] to logits."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject

    def forward(self, x: Tensor) -> Tensor:
        nothing = torch.zeros(len(x), dtype=torch.long)
        return torch.cat([self.subject.logits(part) for part, _ in self.subject.batches(255 * x, nothing)])


def check_autoattack(subject: Subject) -> None:
    """Refuse what AutoAttack cannot do.

    Raises:
        BenchError: its package is not installed, or there are too few classes.
    """
    if importlib.util.find_spec("pyautoattack") is None:
        raise BenchError(
            "adversarial.attacks has autoattack, which needs more packages: pip install 'snn-bench[robust]'"
        )
    if subject.splits.classes < 4:
        raise BenchError(f"AutoAttack's losses compare four classes, and the run has {subject.splits.classes}")


def gradient_of(subject: Subject) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient of the summed cross-entropy by images in 0 to 255; raises a BenchError where there is none."""

    def gradient(images: Tensor, labels: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        with torch.enable_grad():
            losses = [
                F.cross_entropy(subject.logits(x), y, reduction="sum") for x, y in subject.batches(images, labels)
            ]
            loss = torch.stack(losses).sum()
            (slope,) = torch.autograd.grad(loss, images, allow_unused=True) if loss.requires_grad else (None,)
        if slope is None:
            raise BenchError("probe=adversarial follows gradients, and none reaches the image through this network")
        return slope

    return gradient


def zero_gradients(subject: Subject, images: Tensor, labels: Tensor) -> float:
    """Percent of images whose gradient is 0 in every pixel."""
    gradient = gradient_of(subject)
    flat = [gradient(x, y).flatten(1).abs().amax(1) == 0 for x, y in chunks(images, labels, subject.batch_size)]
    return 100.0 * float(torch.cat(flat).double().mean())


def chunks(images: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Images and labels, `size` at a time."""
    return list(zip(images.split(size), labels.split(size), strict=True))
