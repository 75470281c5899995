"""Weights with orthonormal rows, or with a small Lipschitz constant."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.activity import Activity
from bench.errors import BenchError
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative
from bench.space import Choice, Log


class Form(StrEnum):
    """`step` moves the weights after each step, `frobenius` and `lipschitz` are penalties on the loss."""

    step = "step"
    frobenius = "frobenius"
    lipschitz = "lipschitz"


def towards_orthonormal(w: Tensor, weight: float) -> Tensor:
    """(1 + weight) W - weight W W^T W.

    Args:
        w: `[out, in]`, or a convolution's `[out, in, kH, kW]`, whose rows are its output channels.
        weight: of the step.
    """
    rows = w.flatten(1)
    # The smaller of the two products: of many rows W^T W, else W W^T.
    cubed = rows @ (rows.T @ rows) if rows.shape[0] > rows.shape[1] else (rows @ rows.T) @ rows
    return ((1 + weight) * rows - weight * cubed).view_as(w)


def off_orthonormal(w: Tensor) -> Tensor:
    """The squared Frobenius norm of W W^T - I, of rows as in `towards_orthonormal`."""
    rows = w.flatten(1)
    gram = rows @ rows.T
    return (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()


def lipschitz(w: Tensor) -> Tensor:
    """The largest sum of a row's positive weights plus the largest of its negative ones' sizes.

    That bounds by how much a neuron's current may change when any of its inputs, which are spikes, flip.
    """
    rows = w.flatten(1)
    return rows.relu().sum(1).amax() + (-rows).relu().sum(1).amax()


@REGULARIZERS.register("orthogonal")
class Orthogonal(Regularizer):
    """Orthogonal weights: each step ends with W <- (1 + weight) W - weight W W^T W, rows being output channels.

    As penalties: `frobenius` adds weight |W W^T - I|_F^2, `lipschitz` weight times (the largest sum of a row's positive
    weights + the largest of its negative ones), each summed over all convolutions and linear layers.

    Source: Ding et al. 2022 (NeurIPS, SNN-RAT), section 4 and its repository; the step is that of Cisse et al. 2017
    (arXiv 1704.08847), eq. 8 (the number is not verified). 0.002 is the function's default in the authors' code, their
    command line's is 5e-4, and later work has 0.004.

    Args:
        weight: of the step or of the penalty, 0 or more.
        form: which, see `Form`.

    Raises:
        BenchError: a negative weight, or a network whose weights another method has replaced (weight normalization).
    """

    family = Family.weights
    strength = "weight"
    replayable = True
    reads = ()  # weights alone
    space = {
        "weight": Log(1e-5, 0.1, authors=0.002, source="Ding et al. 2022, their repository's function"),
        "form": Choice(("step", "frobenius", "lipschitz"), authors="step", source="Ding et al. 2022"),
    }

    def __init__(self, weight: float = 0.002, form: Form = Form.step) -> None:
        super().__init__()
        nonnegative("orthogonal", weight=weight)
        self.weight, self.form = weight, Form(form)
        # In a list: the network is no module of this one's.
        self.network: list[SpikingNetwork] = []

    def attach(self, model: SpikingNetwork) -> None:
        self.network = [model]

    def matrices(self) -> list[Tensor]:
        """The weights of all convolutions and linear layers.

        Raises:
            BenchError: one is made of other parameters.
        """
        found: list[Tensor] = []
        for model in self.network:
            for name, module in model.named_modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    if parametrize.is_parametrized(module, "weight"):
                        raise BenchError(
                            f"reg=orthogonal: the weights of {name} are made of others by another regularizer; "
                            "keep one of them"
                        )
                    found.append(module.weight)
        return found

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        if self.weight == 0 or self.form is Form.step or not self.network:
            return {}
        measure = off_orthonormal if self.form is Form.frobenius else lipschitz
        return {"orthogonal": self.weight * torch.stack([measure(w.float()) for w in self.matrices()]).sum()}

    @torch.no_grad()
    def after_step(self, activity: Activity) -> None:
        if self.weight == 0 or self.form is not Form.step:
            return
        for w in self.matrices():
            w.copy_(towards_orthonormal(w, self.weight))
