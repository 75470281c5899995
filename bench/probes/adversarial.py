"""Accuracy and spike rate under attacks on the image: FGSM, PGD, two that adapt, Square, AutoAttack."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import BenchError
from bench.probes._attacks import Slope, fgsm, pgd, sa_pgd, square
from bench.probes._reliability import doubts
from bench.probes._sharpness import sharpened
from bench.probes.base import Outcome, Probe, Say, Subject
from bench.ranges import Numbers
from bench.registry import PROBES
from bench.seeds import derive, generator

GREY = (0.05, 0.1, 0.2, 0.3)  # 0.3 is what MNIST is attacked with (Madry et al. 2018)
COLOUR = (2 / 255, 4 / 255, 8 / 255, 16 / 255)  # 8/255 is CIFAR's
TARGETS = 9  # of AutoAttack's targeted parts
RELAX, MEMORY = 1.5, 0.9  # of the adaptive surrogate, the authors' values
ANY = "any"

SETTINGS = Numbers("adversarial.")
RADII = Numbers("adversarial.", "{key} has {value}, it must {wanted}")


class Attack(StrEnum):
    """`fgsm`, `pgd`; `pgd_assg` and `sapgd` follow adaptive surrogates; `square` follows no gradient; `autoattack`
    needs the extra `robust`."""

    fgsm = "fgsm"
    pgd = "pgd"
    pgd_assg = "pgd_assg"
    sapgd = "sapgd"
    square = "square"
    autoattack = "autoattack"


BLACK_BOX = frozenset({Attack.square})


@PROBES.register("adversarial")
class AdversarialProbe(Probe):
    """Accuracy under attacks within a ball around each test image, and what they do to the spike rate.

    Gradients reach the image through the surrogates of all spiking layers, and through Poisson inputs straight. They
    are white-box attacks on the very network that is measured, random numbers of its evaluation included. Where
    surrogate gradients mislead, an accuracy is an upper bound: `pgd_assg` and `sapgd` follow surrogates whose
    sharpness adapts to each neuron and step (ASSG), `square` follows no gradient, and AutoAttack has a part that needs
    none. Where `square` fools more images than all that follow gradients, or accuracy does not fall with the radius,
    the probe calls its numbers unreliable.

    Source: FGSM of Goodfellow et al. 2015 (arXiv 1412.6572); PGD of Madry et al. 2018 (arXiv 1706.06083), eq. 2.1;
    ASSG and SA-PGD of Wang et al. 2025 (arXiv 2512.22522), by the authors' repository; Square of Andriushchenko et
    al. 2020 (arXiv 1912.00049); AutoAttack of Croce & Hein 2020 (arXiv 2003.01690), standard version.

    Args:
        attacks: some of fgsm, pgd, pgd_assg, sapgd, square, autoattack.
        eps: radii in the maximum norm, of pixels in [0, 1]; null is 0.05 to 0.3 for grey, 2/255 to 16/255 for colour.
        steps: of PGD.
        step: size of PGD's steps as a share of eps; null is 2.5 / steps, with pgd_assg's own steps for that.
        images: test images, class-balanced; AutoAttack takes hours for thousands.
        adaptive_steps: of pgd_assg and sapgd, each of which costs more than one of PGD's: no fused kernel serves them.
        omega: of ASSG, the sharpness of a neuron whose potential is 1 from its threshold on average; 2.65 is the
            authors' (2 / pi) tan(0.425 pi).
        queries: of square, for each image and radius; its authors have thousands.

    Raises:
        BenchError: no attack, one twice, an eps outside [0, 1], an omega of 0 or below, or fewer than one step, query
            or image.
    """

    def __init__(
        self,
        attacks: list[Attack] = [Attack.fgsm, Attack.pgd, Attack.sapgd, Attack.square],  # noqa: B006
        eps: list[float] | None = None,
        steps: int = 10,
        step: float | None = None,
        images: int = 500,
        adaptive_steps: int = 20,
        omega: float = 2.65,
        queries: int = 100,
    ) -> None:
        SETTINGS.at_least(1, steps=steps, images=images, adaptive_steps=adaptive_steps, queries=queries)
        if not attacks or len(set(attacks)) < len(attacks):
            raise BenchError(f"adversarial.attacks=[{','.join(attacks)}] must name one or more attacks, each once")
        for radius in eps or ():
            RADII.within("[0, 1]", ": pixels are in that range", eps=radius)
        if eps is not None and not eps:
            raise BenchError("adversarial.eps is [], it needs a radius")
        SETTINGS.above(0, step=step, omega=omega)
        self.attacks, self.eps = [Attack(attack) for attack in attacks], eps
        self.steps, self.step, self.images = steps, step, images
        self.adaptive_steps, self.omega, self.queries = adaptive_steps, omega, queries

    def measure(self, subject: Subject, say: Say) -> Outcome:
        if Attack.autoattack in self.attacks:
            check_autoattack(subject)
        images, labels = subject.test_images(self.images)
        images = images.float()
        radii = self.eps if self.eps is not None else list(COLOUR if images.shape[1] == 3 else GREY)
        clean, unharmed = self.row(subject, "none", 0.0, images, labels)
        rows = [clean]
        say(f"adversarial: clean, {clean['acc']:.2f} %")
        right: dict[float, dict[Attack, Tensor]] = defaultdict(dict)
        for attack in self.attacks:
            for eps in radii:
                attacked = torch.cat([
                    ATTACKS[attack](self, subject, x, y, eps, place)
                    for place, (x, y) in enumerate(chunks(images, labels, subject.batch_size))
                ])  # fmt: skip
                row, right[eps][attack] = self.row(subject, attack.value, eps, attacked, labels)
                rows.append(row)
                say(f"adversarial: {attack} eps {eps:.4g}, {row['acc']:.2f} %")
        shown = Attack.pgd if Attack.pgd in self.attacks else self.attacks[0]
        headline = {"clean (%)": clean["acc"]}
        headline |= {f"{shown} eps {row['eps']:.4g} (%)": row["acc"] for row in rows if row["attack"] == shown}
        if len(self.attacks) > 1:
            for eps in radii:
                standing = unharmed & torch.stack(list(right[eps].values())).all(0)
                acc = 100 * float(standing.double().mean())
                rows.append({"attack": ANY, "eps": eps, "acc": acc, "loss": None, "spike_rate": None})
                headline[f"any attack eps {eps:.4g} (%)"] = acc
        return Outcome(
            images=len(labels),
            rows=rows,
            headline=headline,
            notes={
                "eps": "radius in the maximum norm, pixels in [0, 1] before normalization",
                "acc": "percent of the images still classified right",
                "spike_rate": "spikes / (neurons x time steps x images) on the attacked images",
                ANY: "percent of the images that are classified right, and still are under each of the attacks",
                "zero_gradient": "percent of the clean images whose gradient is 0 everywhere: these no gradient moves",
            },
            more={"zero_gradient": zero_gradients(subject, images, labels)} if set(self.attacks) - BLACK_BOX else {},
            doubts=doubts(right, BLACK_BOX, subject.splits.classes),
        )

    def row(
        self, subject: Subject, attack: str, eps: float, images: Tensor, labels: Tensor
    ) -> tuple[dict[str, Any], Tensor]:
        """What the network makes of attacked images, in 0 to 255, and which of them it classifies right."""
        meter, right = subject.judge(images, labels)
        summary = meter.summary()
        row = {
            "attack": attack,
            "eps": eps,
            "acc": summary["acc"],
            "loss": summary["loss"],
            "spike_rate": summary["spike_rate"],
        }
        return row, right

    def fgsm(self, subject: Subject, x: Tensor, y: Tensor, eps: float, place: int) -> Tensor:
        """One step; images in 0 to 255."""
        return fgsm(gradient_of(subject), x, y, 255 * eps, high=255)

    def pgd(self, subject: Subject, x: Tensor, y: Tensor, eps: float, place: int) -> Tensor:
        """From a random start; images in 0 to 255."""
        draw = generator("cpu", subject.seed, "pgd", str(eps), place)
        return pgd(gradient_of(subject), x, y, 255 * eps, self.steps, self.size(eps, self.steps), draw, high=255)

    def pgd_assg(self, subject: Subject, x: Tensor, y: Tensor, eps: float, place: int) -> Tensor:
        """PGD along adaptive surrogates; images in 0 to 255."""
        draw = generator("cpu", subject.seed, "pgd_assg", str(eps), place)
        steps = self.adaptive_steps
        with sharpened(subject.task.model, self.omega, RELAX, MEMORY) as network:

            def gradient(images: Tensor, labels: Tensor) -> Tensor:
                network.begin()
                return slope_of(subject, images, labels).gradient

            return pgd(gradient, x, y, 255 * eps, steps, self.size(eps, steps), draw, high=255)

    def sapgd(self, subject: Subject, x: Tensor, y: Tensor, eps: float, place: int) -> Tensor:
        """Stable adaptive PGD along adaptive surrogates; images in 0 to 255."""
        draw = generator("cpu", subject.seed, "sapgd", str(eps), place)
        with sharpened(subject.task.model, self.omega, RELAX, MEMORY) as network:

            def slope(images: Tensor, labels: Tensor) -> Slope:
                network.begin()
                return slope_of(subject, images, labels)

            return sa_pgd(slope, x, y, 255 * eps, self.adaptive_steps, draw, high=255)

    def square(self, subject: Subject, x: Tensor, y: Tensor, eps: float, place: int) -> Tensor:
        """Random search; images in 0 to 255."""
        draw = generator("cpu", subject.seed, "square", str(eps), place)
        return square(margin_of(subject), x, y, 255 * eps, self.queries, draw, high=255)

    def size(self, eps: float, steps: int) -> float:
        """Of a step of PGD, in units of 0 to 255."""
        return 255 * eps * (2.5 / steps if self.step is None else self.step)

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
    Attack.pgd_assg: AdversarialProbe.pgd_assg,
    Attack.sapgd: AdversarialProbe.sapgd,
    Attack.square: AdversarialProbe.square,
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


def slope_of(subject: Subject, images: Tensor, labels: Tensor) -> Slope:
    """The gradient of each image's cross-entropy by the image, in 0 to 255, with what was seen on the way.

    Raises:
        BenchError: no gradient reaches the image.
    """
    images = images.detach().requires_grad_()
    losses, right = [], []
    with torch.enable_grad():
        for x, y in subject.batches(images, labels):
            logits = subject.logits(x)
            losses.append(F.cross_entropy(logits, y, reduction="none"))
            right.append(logits.detach().argmax(1) == y)
        loss = torch.cat(losses)
        (slope,) = torch.autograd.grad(loss.sum(), images, allow_unused=True) if loss.requires_grad else (None,)
    if slope is None:
        raise BenchError("probe=adversarial follows gradients, and none reaches the image through this network")
    return Slope(slope, loss.detach(), torch.cat(right))


def gradient_of(subject: Subject) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient alone of `slope_of`, as a function of images and labels."""
    return lambda images, labels: slope_of(subject, images, labels).gradient


def margin_of(subject: Subject) -> Callable[[Tensor, Tensor], Tensor]:
    """By how much the right logit exceeds all others, `[N]`, as a function of images in 0 to 255 and labels."""

    @torch.no_grad()
    def margin(images: Tensor, labels: Tensor) -> Tensor:
        found = []
        for x, y in subject.batches(images, labels):
            logits = subject.logits(x)
            own = logits.gather(1, y[:, None])[:, 0]
            found.append(own - logits.scatter(1, y[:, None], -torch.inf).amax(1))
        return torch.cat(found).to(images.device)

    return margin


def zero_gradients(subject: Subject, images: Tensor, labels: Tensor) -> float:
    """Percent of images whose gradient is 0 in every pixel."""
    gradient = gradient_of(subject)
    flat = [gradient(x, y).flatten(1).abs().amax(1) == 0 for x, y in chunks(images, labels, subject.batch_size)]
    return 100.0 * float(torch.cat(flat).double().mean())


def chunks(images: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Images and labels, `size` at a time."""
    return list(zip(images.split(size), labels.split(size), strict=True))
