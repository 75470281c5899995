"""Use-it-or-lose-it: weights behind silent inputs decay with the time since the input was last used."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from bench.activity import Activity
from bench.errors import BenchError
from bench.models.base import SpikingNetwork
from bench.neurons import Spiking
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative, positive
from bench.regularizers.weightnorm import scale_weight

U_MAX = 20.0  # exp(-20^2) is 0 in float32; beyond it, u^2 could overflow and its gradient be NaN
RATE_MAX = 1e30  # times a clock of 1e7 steps this is still finite in float32


class Form(StrEnum):
    """What D does: `effective` scales the weights in use, `literal` writes them, `penalty` is a loss."""

    effective = "effective"
    literal = "literal"
    penalty = "penalty"


class Scope(StrEnum):
    """Whose usage counts: `pre`, the input's, or `synapse`, the pair's (linear layers)."""

    pre = "pre"
    synapse = "synapse"


def usage_of(rate: Tensor, r0: float) -> Tensor:
    """min(1, r / r0), and 0 for rates below 0 (sums of what alpha dropout emits); with a gradient at 0."""
    # clamp(min=0) has none at 0 itself, which is where the silent inputs are.
    return torch.where(rate < 0, 0.0, rate / r0).clamp(max=1.0)


def input_usage(x: Tensor, channel_axis: int, r0: float, analog: bool) -> Tensor:
    """a_j = min(1, r_j / r0), r_j the mean of input j's spikes over time, batch and space.

    Args:
        x: the layer's input, `[T * N, C, H, W]` with channel axis 1, or `[..., F]` with -1.
        channel_axis: which axis j counts.
        r0: rate at and above which an input is fully used; spikes per neuron and time step.
        analog: x holds no spikes: r_j is the mean of 1[x != 0], without gradient.

    Returns:
        `[C]` in [0, 1], float32 at least, with x's graph.
    """
    values = (x != 0).to(x.dtype) if analog else x
    axes = [axis for axis in range(x.ndim) if axis != channel_axis % x.ndim]
    # A mean in bfloat16 would be too coarse for small rates.
    rate = values.mean(axes, dtype=torch.promote_types(x.dtype, torch.float32))
    return usage_of(rate, r0)


def pair_usage(x: Tensor, layer: nn.Linear, r0: float, analog: bool) -> Tensor:
    """a_ij = min(1, r_ij / r0), r_ij the share in which input j's spikes meet an excited unit i.

    Whether unit i will fire is known only behind the layer, so i counts as excited where the current
    it gets, with last step's decay, is above 0. That is a constant: the gradient goes to x alone.

    Args:
        x: `[..., F]`, see `input_usage`.
        layer: of `[O, F]` weights.
        r0: see `input_usage`.
        analog: see `input_usage`.

    Returns:
        `[O, F]` in [0, 1], float32 at least.
    """
    real = torch.promote_types(x.dtype, torch.float32)
    # Autocast off: within no_grad it would cache a weight cast to bfloat16 that has no gradient.
    with torch.autocast(x.device.type, enabled=False):
        with torch.no_grad():
            excited = F.linear(x.to(layer.weight.dtype), layer.weight, layer.bias).flatten(0, -2) > 0
        used = ((x != 0) if analog else x).to(real).flatten(0, -2)
        return usage_of(excited.to(real).T @ used / len(used), r0)


def tick(clock: Tensor, usage: Tensor) -> Tensor:
    """The clock after one training step: (q + 1)(1 - a), 0 for what was fully used."""
    return (clock + 1) * (1 - usage)


def decay(clock: Tensor, k_p: float, tau: float, share: Tensor | float = 1.0) -> Tensor:
    """D = exp(-share * k_p (q / tau)^2), antonov2024's eq. 5; never NaN, nor its gradient.

    Args:
        clock: q, in training steps.
        k_p: pruning coefficient, 0 or more.
        tau: time over which pruning occurs, in training steps.
        share: part of the exponent to apply.
    """
    u = (clock * min(k_p**0.5 / tau, RATE_MAX)).clamp(max=U_MAX)
    return torch.exp(-share * u * u)


def spread(values: Tensor, weight: Tensor, groups: int = 1) -> Tensor:
    """Values per input `[C]` as a factor that broadcasts against the weight.

    Args:
        values: `[C]`, or `[O, F]` for a linear weight, which stays as it is.
        weight: `[O, C / groups, ...]`.
        groups: of the convolution; output o reads the inputs of group o // (O / groups).
    """
    if values.ndim == 2:
        return values.to(weight.dtype)
    per_group = values.view(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
    return per_group.view(*per_group.shape, *[1] * (weight.ndim - 2)).to(weight.dtype)


class UseClock(nn.Module):
    """Clock, usage and decay of one layer's inputs; hangs in the layer as `use_clock`.

    Attributes:
        q: `[C]`, or `[O, F]` for pairs: training steps since the last use, stored in checkpoints.
        live: the decay of the training step under way, with its graph; None between steps.
    """

    q: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear, reg: UseItOrLoseIt, analog: bool) -> None:
        super().__init__()
        self.k_p, self.tau, self.r0, self.form = reg.k_p, reg.tau, reg.r0, reg.form
        self.detach, self.analog = reg.detach_clock, analog
        self.groups = getattr(layer, "groups", 1)
        self.channel_axis = -1 if isinstance(layer, nn.Linear) else 1
        self.pairs = reg.scope is Scope.synapse and isinstance(layer, nn.Linear)
        weight = layer.weight
        shape = weight.shape if self.pairs else (weight.shape[1] * self.groups,)
        self.register_buffer("q", torch.zeros(shape, dtype=torch.float32, device=weight.device))
        self.live: Tensor | None = None

    def factor(self, weight: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """The decay, ready to multiply the weight: of the step under way, or of the clock as it stands."""
        values = decay(self.q, self.k_p, self.tau, share) if self.live is None else self.live
        return spread(values, weight, self.groups)

    def before(self, layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        """Advance by one training step; runs before the layer is applied."""
        if not self.training:
            return
        x = inputs[0].detach() if self.detach else inputs[0]
        if self.pairs:
            assert isinstance(layer, nn.Linear)
            usage = pair_usage(x, layer, self.r0, self.analog)
        else:
            usage = input_usage(x, self.channel_axis, self.r0, self.analog)
        if self.form is Form.literal:
            with torch.no_grad():
                scale_weight(layer, self.factor(layer.weight, share=usage))
        clock = tick(self.q, usage)
        if self.form is not Form.literal:
            self.live = decay(clock, self.k_p, self.tau)
        self.q.copy_(clock.detach())

    def after(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """Let go of the step's graph once the layer has used it."""
        self.live = None


class Decayed(nn.Module):
    """Parametrization of a weight: W times the decay of its layer's clock."""

    def __init__(self, clock: UseClock) -> None:
        super().__init__()
        # In a tuple: as a submodule here and of the layer, the clock would be stored twice.
        self.clock = (clock,)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.clock[0].factor(weight)


@REGULARIZERS.register("uselose")
class UseItOrLoseIt(Regularizer):
    """Use it or lose it: weights W_:j decay by exp(-k_p (q_j / tau)^2) while their input j is silent.

    j is an input channel of a convolution or an input of a linear layer, the head included. Each
    training step measures the usage a_j in [0, 1] of every input and advances its clock, q_j <-
    (q_j + 1)(1 - a_j), before the layer is applied; eval mode leaves clocks and weights alone.

    - `effective`: the layer computes with W_:j D_j. It is reversible, and the gradient reaches the
      spikes through D_j. `bake` folds D into W.
    - `literal`: a use writes the decay pending since the last one into W_:j, which compounds and does not
      come back. A use by the share a_j writes W_:j D_j^a_j, so that a = 1 is the paper's event. The
      time since the last use is counted in silent steps: 0 for an input used at every step, whose
      weights then stay as they are. `bake` writes what is pending, as the paper's authors do.
    - `penalty`: adds weight * 1/2 sum_j (1 - D_j) ||W_:j||^2 to the loss.

    For layers that no spiking layer precedes, and for the ReLU twin, usage is the share of nonzero
    values. With `scope=synapse` linear layers keep a clock for each pair, see `pair_usage`;
    convolutions keep `pre`.

    Source: antonov2024 (Antonov & Sukhov, Weight regularization in spiking neural networks), eq. 5;
    prior art: ASP (arXiv 1703.07655), DPAP (arXiv 2211.12714). Usage as a rate and the forms
    `effective` and `penalty` are this suite's.

    Args:
        k_p: pruning coefficient, 0 or more (the paper: 1).
        tau: time over which pruning occurs, in training steps (the paper: 15 presentations).
        r0: rate, in spikes per neuron and time step, at and above which an input is fully used.
        form: what the decay does.
        scope: whose usage counts.
        detach_clock: keep the gradient out of the usage; null is false for `effective` and true for
            `penalty`, which would otherwise reward firing. `literal` has no gradient.
        weight: coefficient of the penalty form, 0 or more.

    Raises:
        BenchError: negative k_p or weight, tau or r0 of 0 or below, or a gradient asked of `literal`.
    """

    strength = "k_p"
    replayable = True

    def __init__(
        self,
        k_p: float = 1.0,
        tau: float = 15.0,
        r0: float = 0.05,
        form: Form = Form.effective,
        scope: Scope = Scope.pre,
        detach_clock: bool | None = None,
        weight: float = 1e-3,
    ) -> None:
        super().__init__()
        nonnegative("uselose", k_p=k_p, weight=weight)
        positive("uselose", tau=tau, r0=r0)
        self.k_p, self.tau, self.r0, self.weight = k_p, tau, r0, weight
        self.form, self.scope = Form(form), Scope(scope)
        if self.form is Form.literal and detach_clock is False:
            raise BenchError("reg.uselose.detach_clock is false, but form=literal has no gradient at all")
        self.detach_clock = self.form is not Form.effective if detach_clock is None else detach_clock
        self.identity_in_eval = self.form is not Form.effective or k_p == 0
        self._layers: list[Any] = []
        self._hooks: list[RemovableHandle] = []

    def attach(self, model: SpikingNetwork) -> None:
        if self.k_p == 0:
            return
        analog = analog_layers(model)
        for layer in [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
            self.attach_layer(layer, layer in analog)

    def attach_layer(self, layer: nn.Conv2d | nn.Linear, analog: bool = False) -> UseClock:
        """Give one layer a clock; `analog` says that its input holds no spikes."""
        clock = UseClock(layer, self, analog)
        layer.add_module("use_clock", clock)
        self._layers.append(layer)
        self._hooks.append(layer.register_forward_pre_hook(clock.before))
        if self.form is Form.effective:
            parametrize.register_parametrization(layer, "weight", Decayed(clock))
            self._hooks.append(layer.register_forward_hook(clock.after))
        return clock

    def penalty(self, activity: Activity) -> dict[str, Tensor]:
        if self.form is not Form.penalty or self.weight == 0 or not self._layers:
            return {}
        terms = [
            ((1 - layer.use_clock.factor(weight)) * weight.square()).sum()
            for layer in self._layers
            for weight in [layer.weight]
        ]
        return {"uselose": 0.5 * self.weight * torch.stack(terms).sum()}

    def after_step(self, activity: Activity) -> None:
        for layer in self._layers:
            layer.use_clock.live = None

    @torch.no_grad()
    def bake(self, model: SpikingNetwork) -> None:
        for layer in self._layers:
            if self.form is Form.literal:
                scale_weight(layer, layer.use_clock.factor(layer.weight))
            if self.form is Form.effective and parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight")
            del layer.use_clock
        for hook in self._hooks:
            hook.remove()
        self._layers, self._hooks = [], []


@torch.no_grad()
def analog_layers(model: SpikingNetwork) -> set[nn.Module]:
    """The convolutions and linear layers that no spiking layer precedes, found by one pass in eval mode."""
    analog: set[nn.Module] = set()
    spikes_seen = False

    def note(module: nn.Module, *_: Any) -> None:
        nonlocal spikes_seen
        if isinstance(module, Spiking):
            spikes_seen |= module.is_spiking
        elif not spikes_seen:
            analog.add(module)

    noted = [m for m in model.modules() if isinstance(m, Spiking | nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(note) for m in noted]
    was_training = model.training
    weight = next(model.parameters())
    model.eval()
    model.forget()
    try:
        model(torch.zeros(1, *model.spec.image_shape, dtype=weight.dtype, device=weight.device))
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
        model.forget()
    return analog
