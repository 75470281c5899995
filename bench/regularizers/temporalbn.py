"""Batch norms that know of thresholds and time steps, in place of the plain one."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.families import Family
from bench.models.base import SpikingNetwork
from bench.ops import ConvNorm, StepNorm
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, positive
from bench.regularizers.needs import several_steps, spiking
from bench.space import Choice


class Form(StrEnum):
    """`tdbn` starts from the threshold's scale, `tebn` scales each time step, `bntt` normalizes each by itself."""

    tdbn = "tdbn"
    tebn = "tebn"
    bntt = "bntt"


class TemporalEffectiveBatchNorm(StepNorm):
    """Batch norm over all time steps, each of which is then scaled: y[t] = p[t] (g (x[t] - mu) / sqrt(var + eps) + b).

    In the static stem the batch norm sees each image once, and the scales come behind it: over T equal steps it would
    give the same values.

    Shapes: see `StepNorm`.

    Args:
        norm: the batch norm, with g and b.
        time_steps: T.

    Attributes:
        scale: p, `[T]`, from 1 on.
    """

    def __init__(self, norm: nn.BatchNorm2d, time_steps: int) -> None:
        super().__init__()
        self.norm = norm
        self.scale = nn.Parameter(torch.ones(time_steps).to(norm.weight))

    def forward(self, x: Tensor, repeat: bool = False) -> Tensor:
        y = self.norm(x)
        steps = y.unsqueeze(0) if repeat else y.unflatten(0, (len(self.scale), -1))
        # In float32 at least: bfloat16 would round p to two digits.
        out = steps * self.scale.view(-1, *[1] * x.ndim)
        return out.to(y.dtype).flatten(0, 1)


class BatchNormThroughTime(StepNorm):
    """Each time step has a batch norm of its own, without a shift: y[t] = g[t] (x[t] - mu[t]) / sqrt(var[t] + eps).

    In the static stem all steps' statistics are those of the same images; the scales still differ.

    Shapes: see `StepNorm`.

    Args:
        norm: the batch norm that it replaces: channels, eps, momentum, device.
        time_steps: T.

    Attributes:
        norms: one a step, each with its running statistics and its g `[C]`, from 1 on.
    """

    def __init__(self, norm: nn.BatchNorm2d, time_steps: int) -> None:
        super().__init__()
        steps = [nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum) for _ in range(time_steps)]
        for step in steps:
            step.register_parameter("bias", None)
        self.norms = nn.ModuleList(steps).to(norm.weight)

    def forward(self, x: Tensor, repeat: bool = False) -> Tensor:
        steps = [x] * len(self.norms) if repeat else x.unflatten(0, (len(self.norms), -1)).unbind(0)
        return torch.cat([norm(step) for norm, step in zip(self.norms, steps, strict=True)])


@REGULARIZERS.register("temporalbn")
class TemporalBatchNorm(Regularizer):
    """Temporal batch norm: batch norm that starts from the threshold (tdbn), scales (tebn) or knows (bntt) each step.

    It takes the place of batch norm behind every convolution that goes through `fire_block`.

    - `tdbn`: y = g alpha V (x - mu) / sqrt(var + eps) + b with the statistics of all time steps, V being the threshold;
      alpha V is where the batch norm's own g starts, as in SpikingJelly. The authors have alpha = 1, and 1 / sqrt(2) in
      two branches whose currents are summed, so that the sum has the variance V^2 (not verified). The networks here sum
      spikes: every neuron's current comes of one norm, and alpha is 1 everywhere. Since the suite's batch norm has the
      statistics of all time steps too, this form with V = 1 and alpha = 1 is the baseline itself. It runs in the same
      kernels.
    - `tebn`: y[t] = p[t] (g (x[t] - mu) / sqrt(var + eps) + b); p, one number a step and layer, is learned from 1 on.
    - `bntt`: y[t] = g[t] (x[t] - mu[t]) / sqrt(var[t] + eps), with running statistics for each step and no shift.

    For `tebn` and `bntt` the norm runs by itself, and the kernels take over behind it. What they do depends on the time
    step, so that no weights could take it up: a baked network keeps them, and an export to plain convolutions cannot
    hold them.

    Source: tdBN: Zheng et al. 2021 (arXiv 2011.05280), eqs. 6 and 7; TEBN: Duan et al. 2022 (NeurIPS), eq. 7; BNTT: Kim
    & Panda 2021 (arXiv 2010.01729), eq. 5 (the numbers are not verified). The formulas are those of SpikingJelly's
    layers.

    Args:
        form: which, see `Form`.
        alpha: of `tdbn`, above 0.

    Raises:
        BenchError: alpha of 0 or below, a network without batch norm, one time step for `tebn` or `bntt`, or a network
            without thresholds for `tdbn`.
    """

    family = Family.normalization
    replaces = ("normalization",)
    replayable = True
    space = {
        # tdbn with a threshold of 1 is the baseline: trials there would be spent on nothing.
        "form": Choice(("tebn", "bntt"), authors="tebn", source="Duan et al. 2022; bntt: Kim & Panda 2021"),
    }

    def __init__(self, form: Form = Form.tebn, alpha: float = 1.0) -> None:
        super().__init__()
        positive("temporalbn", alpha=alpha)
        self.form, self.alpha = Form(form), alpha
        self.identity_in_eval = self.form is Form.tdbn
        self._start = 1.0

    def attach(self, model: SpikingNetwork) -> None:
        blocks = [module for module in model.modules() if isinstance(module, ConvNorm)]
        found = [(block, block.norm) for block in blocks if isinstance(block.norm, nn.BatchNorm2d)]
        if not found:
            raise BenchError(
                f"reg=temporalbn replaces batch norm behind convolutions, and {type(model).__name__} has none"
            )
        if self.form is Form.tdbn:
            spiking("temporalbn", model, "thresholds")
            self._start = self.alpha * model.spec.neuron.v_threshold
            with torch.no_grad():
                for _, norm in found:
                    norm.weight.mul_(self._start)
            return
        several_steps("temporalbn", model)
        kind = TemporalEffectiveBatchNorm if self.form is Form.tebn else BatchNormThroughTime
        for block, norm in found:
            block.norm = kind(norm, model.time_steps)

    def had_effect(self) -> bool | None:
        return False if self.form is Form.tdbn and self._start == 1 else None
