"""Use-it-or-lose-it: weights behind silent inputs decay with the time since the input was last used."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from bench.activity import Activity
from bench.errors import BenchError
from bench.families import Family
from bench.models.base import Spec, SpikingNetwork
from bench.models.mlp import BLACK
from bench.neurons import Read, Spiking
from bench.neurons.reads import channel_means
from bench.registry import REGULARIZERS
from bench.regularizers.base import Regularizer, nonnegative, positive
from bench.regularizers.weightnorm import scale_weight
from bench.space import Log

U_MAX = 20.0  # exp(-20^2) is 0 in float32; beyond it, u^2 could overflow and its gradient be NaN
RATE_MAX = 1e30  # times a clock of 1e7 steps this is still finite in float32
SILENT = 1e-12  # far below one spike in all of a layer: it keeps 0 / 0 away


class Form(StrEnum):
    """What D does: `effective` scales the weights in use, `literal` writes them, `penalty` is a loss."""

    effective = "effective"
    literal = "literal"
    penalty = "penalty"


class Scope(StrEnum):
    """Whose usage counts: `pre`, the input's, or `synapse`, the pair's (linear layers)."""

    pre = "pre"
    synapse = "synapse"


class Usage(StrEnum):
    """What counts as use: `absolute`, spikes; `relative`, to spike no less than the layer's inputs do on average."""

    absolute = "absolute"
    relative = "relative"


def usage_of(rate: Tensor, r0: float) -> Tensor:
    """min(1, r / r0), and 0 for rates below 0 (sums of what alpha dropout emits); with a gradient at 0."""
    # clamp(min=0) has none at 0 itself, which is where the silent inputs are.
    return torch.where(rate < 0, 0.0, rate / r0).clamp(max=1.0)


def standing(spikes: Tensor, r0: float) -> Tensor:
    """Which inputs keep up with their layer, image by image: 1 for those who fire as its inputs do on average, or more.

    With s_j the mean of input j's spikes for an image, over time and space, and m the mean of s over the inputs: 1
    where s_j is m or more, 0 where it is (1 - r0) m or less, linear between. Where nothing fires nobody keeps up. m is
    part of the graph: what all inputs do alike changes nothing, so that firing more all over the layer brings no
    reward. Outside of the ramp the gradient is 0.

    Args:
        spikes: s, `[N, C]` of a convolution's input, see `channel_means`; `[..., F]` of a linear layer's, whose time
            steps are compared one by one.
        r0: width of the ramp, a share of m; 1 at most.

    Returns:
        `[N, C]`, or `[..., F]`; float32 at least.
    """
    spikes = spikes.to(torch.promote_types(spikes.dtype, torch.float32))
    mean = spikes.mean(-1, keepdim=True).clamp(min=SILENT)
    return (1 + (spikes / mean - 1) / min(r0, 1.0)).clamp(0.0, 1.0)


def marks(x: Tensor, dim: Tensor | None) -> Tensor:
    """What stands for spikes in analog input: 1 where it is used, 0 elsewhere, of x's shape and type, no gradient.

    Args:
        x: the layer's input.
        dim: `[1, ...]`, what it is where pixels are the brightest black: above, a pixel is lit. None for what is no
            image, which is used where it is not 0.
    """
    return ((x != 0) if dim is None else (x > dim.to(x.dtype))).to(x.dtype)


def input_usage(x: Tensor, channel_axis: int, r0: float) -> Tensor:
    """a_j = min(1, r_j / r0), r_j the mean of input j's spikes over time, batch and space.

    Args:
        x: the layer's input, `[T * N, C, H, W]` with channel axis 1, or `[..., F]` with -1; or its `marks`; or its
            inputs' `standing`.
        channel_axis: which axis j counts.
        r0: rate at and above which an input is fully used; spikes per neuron and time step.

    Returns:
        `[C]` in [0, 1], float32 at least, with x's graph.
    """
    axes = [axis for axis in range(x.ndim) if axis != channel_axis % x.ndim]
    # A mean in bfloat16 would be too coarse for small rates.
    rate = x.mean(axes, dtype=torch.promote_types(x.dtype, torch.float32))
    return usage_of(rate, r0)


def pair_usage(x: Tensor, layer: nn.Linear, r0: float, used: Tensor | None = None) -> Tensor:
    """a_ij = min(1, r_ij / r0), r_ij the share in which input j's spikes meet an excited unit i.

    Whether unit i will fire is known only behind the layer, so i counts as excited where the current
    it gets, with last step's decay, is above 0. That is a constant: the gradient goes to x alone.

    Args:
        x: `[..., F]`, see `input_usage`.
        layer: of `[O, F]` weights.
        r0: see `input_usage`.
        used: `marks` of x, or its inputs' `standing`; None is x itself.

    Returns:
        `[O, F]` in [0, 1], float32 at least.
    """
    real = torch.promote_types(x.dtype, torch.float32)
    # Autocast off: within no_grad it would cache a weight cast to bfloat16 that has no gradient.
    with torch.autocast(x.device.type, enabled=False):
        with torch.no_grad():
            excited = F.linear(x.to(layer.weight.dtype), layer.weight, layer.bias).flatten(0, -2) > 0
        used = (x if used is None else used).to(real).flatten(0, -2)
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


@dataclass(frozen=True)
class Role:
    """What a layer sees in its network.

    Attributes:
        analog: whether no spiking layer precedes it.
        dim: see `marks`; None unless it sees the image itself, normalized or in pixels.
        rows: in how many time steps it sees an image; these are slowest in its input's first axis.
    """

    analog: bool = False
    dim: Tensor | None = None
    rows: int = 1


class UseClock(nn.Module):
    """Clock, usage and decay of one layer's inputs; hangs in the layer as `use_clock`.

    Attributes:
        q: `[C]`, or `[O, F]` for pairs: training steps since the last use, stored in checkpoints.
        dim: see `marks`.
        pruned: whether any weight has decayed.
        live: the decay of the training step under way, with its graph; None between steps.
    """

    q: Tensor
    dim: Tensor | None
    pruned: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear, reg: UseItOrLoseIt, role: Role) -> None:
        super().__init__()
        self.k_p, self.tau, self.r0, self.form = reg.k_p, reg.tau, reg.r0, reg.form
        self.detach, self.analog, self.rows = reg.detach_clock, role.analog, role.rows
        self.groups = getattr(layer, "groups", 1)
        self.channel_axis = -1 if isinstance(layer, nn.Linear) else 1
        # Measured on cnn, budget=quick: the quietest of 32 channels fires at 0.4 (MNIST) to 0.8 (digits) of its layer's
        # mean rate. That ratio for a usage would leave D at 0.98 and above, and a share of time steps, not images,
        # left it at 0.99 and above. By the share of images 13 of 96 channels ended below 1/2 on MNIST, and accuracy at
        # 97.5 % (one seed; without decay 97.8 to 98.1 in five): they were little used, not useless.
        channels_of_spikes = isinstance(layer, nn.Conv2d) and not role.analog
        self.relative = channels_of_spikes if reg.usage is None else reg.usage is Usage.relative
        self.pairs = reg.scope is Scope.synapse and isinstance(layer, nn.Linear)
        weight = layer.weight
        shape = weight.shape if self.pairs else (weight.shape[1] * self.groups,)
        self.register_buffer("q", torch.zeros(shape, dtype=torch.float32, device=weight.device))
        # Known again whenever a layer gets its clock: no part of what was learned.
        self.register_buffer("dim", role.dim, persistent=False)
        # On the device, so that no step waits to know it; of a resumed run, since then.
        self.register_buffer("pruned", torch.zeros((), dtype=torch.bool, device=weight.device), persistent=False)
        self.live: Tensor | None = None

    def factor(self, weight: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """The decay, ready to multiply the weight: of the step under way, or of the clock as it stands."""
        values = decay(self.q, self.k_p, self.tau, share) if self.live is None else self.live
        return spread(values, weight, self.groups)

    def before(self, layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        """Advance by one training step; runs before the layer is applied."""
        if not self.training:
            return
        x = inputs[0]
        used = marks(x, self.dim) if self.analog else x
        if self.channel_axis == 1 and (self.relative or not self.analog):
            used = channel_means(used, self.rows)
        if self.detach:
            x, used = x.detach(), used.detach()
        used = standing(used, self.r0) if self.relative else used
        if self.pairs:
            assert isinstance(layer, nn.Linear)
            usage = pair_usage(x, layer, self.r0, used)
        else:
            usage = input_usage(used, self.channel_axis, self.r0)
        if self.form is Form.literal:
            with torch.no_grad():
                scale_weight(layer, self.factor(layer.weight, share=usage))
        clock = tick(self.q, usage)
        decayed = decay(clock, self.k_p, self.tau)
        if self.form is not Form.literal:
            self.live = decayed
        self.q.copy_(clock.detach())
        self.pruned.logical_or_((decayed.detach() < 1).any())

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

    What a use is: for an input neuron, a spike. A convolution's channel is many neurons, of which some always fire, so
    there use is relative: an image uses a channel that fires at it as much as the layer's channels do on average, and
    r_j is the share of such images, see `standing`. In the image itself a lit pixel is a use, and elsewhere where no
    spiking layer comes before (in the ReLU twin, say) any value but 0. With `scope=synapse` linear layers keep a clock
    for each pair, see `pair_usage`; convolutions keep `pre`.

    Source: antonov2024 (Antonov & Sukhov, Weight regularization in spiking neural networks), eq. 5;
    prior art: ASP (arXiv 1703.07655), DPAP (arXiv 2211.12714). Usage as a rate and the forms
    `effective` and `penalty` are this suite's.

    Args:
        k_p: pruning coefficient, 0 or more (the paper: 1).
        tau: time over which pruning occurs, in training steps (the paper: 15 presentations).
        r0: rate at and above which an input is fully used: spikes per neuron and time step, or, of a relative usage,
            the share of images; there also by which share of the layer's mean a channel may fall behind before an
            image does not use it at all.
        form: what the decay does.
        scope: whose usage counts.
        detach_clock: keep the gradient out of the usage; null is false for `effective` and true for
            `penalty`, which would otherwise reward firing. `literal` has no gradient.
        weight: coefficient of the penalty form, 0 or more.
        usage: what counts as use; null is `relative` for convolutions that see spikes and `absolute` for all else.

    Raises:
        BenchError: negative k_p or weight, tau or r0 of 0 or below, or a gradient asked of `literal`.
    """

    family = Family.weights
    strength = "k_p"
    counts_passes = True
    replayable = True
    space = {
        "k_p": Log(0.01, 100.0, authors=1.0, source="antonov2024, eq. 5 and its notebooks"),
        "tau": Log(3.0, 100.0, authors=15.0, source="antonov2024, its notebooks: 15 presentations"),
        "r0": Log(0.005, 0.5, authors=0.05, source="of this suite: the paper counts single spikes"),
    }

    def __init__(
        self,
        k_p: float = 1.0,
        tau: float = 15.0,
        r0: float = 0.05,
        form: Form = Form.effective,
        scope: Scope = Scope.pre,
        detach_clock: bool | None = None,
        weight: float = 1e-3,
        usage: Usage | None = None,
    ) -> None:
        super().__init__()
        nonnegative("uselose", k_p=k_p, weight=weight)
        positive("uselose", tau=tau, r0=r0)
        self.k_p, self.tau, self.r0, self.weight = k_p, tau, r0, weight
        self.form, self.scope = Form(form), Scope(scope)
        self.usage = None if usage is None else Usage(usage)
        if self.form is Form.literal and detach_clock is False:
            raise BenchError("reg.uselose.detach_clock is false, but form=literal has no gradient at all")
        self.detach_clock = self.form is not Form.effective if detach_clock is None else detach_clock
        # Usage is measured where an input enters its layer, behind pooling and sums.
        self.reads: tuple[Read, ...] = ()
        self.identity_in_eval = self.form is not Form.effective or k_p == 0
        self._layers: list[Any] = []
        self._hooks: list[RemovableHandle] = []

    def attach(self, model: SpikingNetwork) -> None:
        if self.k_p == 0:
            return
        roles = roles_of(model)
        for layer in [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
            role = roles.get(layer, Role())
            if isinstance(layer, nn.Conv2d) and not role.analog:
                self.reads = (Read.channel_outputs,)
            self.attach_layer(layer, role)

    def attach_layer(self, layer: nn.Conv2d | nn.Linear, role: Role = Role()) -> UseClock:
        """Give one layer a clock."""
        clock = UseClock(layer, self, role)
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

    def had_effect(self) -> bool | None:
        if not self._layers:
            return super().had_effect()
        return any(bool(layer.use_clock.pruned) for layer in self._layers)

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
def roles_of(model: SpikingNetwork) -> dict[nn.Module, Role]:
    """What its convolutions and linear layers see, found by two passes in eval mode; the network is left as it was."""
    spec, weight = model.spec, next(model.parameters())
    # A ramp, so that no two values are the same: a layer sees the image if it sees these.
    ramp = torch.linspace(0.25, 0.75, math.prod(spec.image_shape), dtype=weight.dtype, device=weight.device)
    image = normalized(ramp.view(1, *spec.image_shape), spec)
    values = torch.cat([image.flatten(), spec.pixels(image).flatten(), image.new_zeros(1)])
    dim = inputs_of(model, normalized(torch.full_like(image, BLACK), spec))
    roles = {}
    for layer, (x, analog) in inputs_of(model, image).items():
        shows_it = analog and shows(x, values)
        roles[layer] = Role(analog, dim[layer][0][:1].clone() if shows_it else None, len(x))
    return roles


def normalized(pixels: Tensor, spec: Spec) -> Tensor:
    """Images `[N, C, H, W]` as the network gets them."""
    mean, std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))
    return (pixels - mean) / std


def shows(x: Tensor, values: Tensor) -> bool:
    """Whether a layer's input has no values but these, and not only the 0 and the 1 of spikes.

    So it is the image, in whatever order and with whatever zeros around it.
    """
    return bool(torch.isin(x, values.to(x)).all()) and x.unique().numel() > 2


def inputs_of(model: SpikingNetwork, image: Tensor) -> dict[nn.Module, tuple[Tensor, bool]]:
    """What each convolution and linear layer sees at its first use, and whether no spiking layer precedes it.

    Args:
        model: it is left as it was.
        image: `[1, C, H, W]`, normalized.
    """
    inputs: dict[nn.Module, tuple[Tensor, bool]] = {}
    spikes_seen = False

    def note(module: nn.Module, args: tuple[Tensor, ...], _: Any) -> None:
        nonlocal spikes_seen
        if isinstance(module, Spiking):
            spikes_seen |= module.is_spiking
        else:
            inputs.setdefault(module, (args[0].detach(), not spikes_seen))

    noted = [m for m in model.modules() if isinstance(m, Spiking | nn.Conv2d | nn.Linear)]
    handles = [m.register_forward_hook(note) for m in noted]
    was_training = model.training
    model.eval()
    model.forget()
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
        model.forget()
    return inputs
