"""One time step of a network as a graph of plain operations, found by following its forward pass."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from bench.errors import BenchError, one_line
from bench.models.base import SpikingNetwork
from bench.neurons import Spiking
from bench.ops import fire_block


@dataclass(frozen=True)
class Input:
    """What the step is given: the normalized image, the same at every step, or this step's input spikes."""

    spikes: bool


@dataclass(frozen=True)
class Affine:
    """A convolution or linear layer, with the norm behind it folded in.

    Attributes:
        weight: `[C_out, C_in / groups, kH, kW]`, or `[F_out, F_in]` of a linear layer, float64.
        bias: `[C_out]` or `[F_out]`, float64.
        stride, padding, dilation, groups: of a convolution.
    """

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.weight.ndim == 4


@dataclass(frozen=True)
class Neuron:
    """IF or LIF neurons: they charge by their input, fire where v >= threshold, and are reset.

    Charging is v + x, or with a leak v + (x - (v - rest)) / tau, where without `decay_input` x is not divided. The
    reset sets v to `v_reset`, or takes the threshold off v where that is None; rest is `v_reset`, or 0.

    Attributes:
        layer: its name in the network.
        threshold, v_reset, decay_input: as in `bench.neurons.NeuronConfig`.
        tau: membrane time constant in steps; None is no leak.
    """

    layer: str
    threshold: float
    v_reset: float | None
    tau: float | None = None
    decay_input: bool = True

    @property
    def rest(self) -> float:
        """The potential that a pass starts from, and that the leak leads to."""
        return 0.0 if self.v_reset is None else self.v_reset


@dataclass(frozen=True)
class Pool:
    """A pooling by the largest value or by the mean."""

    largest: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Flatten:
    """All axes but the batch's into one."""


@dataclass(frozen=True)
class Add:
    """The sum of two values."""


@dataclass(frozen=True)
class Multiply:
    """The product of two values."""


@dataclass(frozen=True)
class Complement:
    """1 less the value."""


Operation = Input | Affine | Neuron | Pool | Flatten | Add | Multiply | Complement


@dataclass(frozen=True)
class Node:
    """An operation in the graph.

    Attributes:
        name: of letters, digits and underscores.
        operation: what it computes.
        inputs: names of the nodes before it.
        shape: of its value, without the batch.
    """

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A time step of a network.

    Attributes:
        nodes: in an order in which they can be computed; the last gives the step's logits.
        time_steps: T.
        read: how the steps' logits become the answer: `mean` or `sum`.
    """

    nodes: tuple[Node, ...]
    time_steps: int
    read: str

    @property
    def neurons(self) -> Iterator[tuple[Node, Neuron]]:
        """The spiking layers."""
        for node in self.nodes:
            if isinstance(node.operation, Neuron):
                yield node, node.operation


def follow(network: SpikingNetwork) -> Graph:
    """The graph of a network, in float64: norms are folded into what stands before them.

    The forward pass is followed by `torch.fx`: a network may be anything that its `features` makes of convolutions,
    linear layers, per-channel norms, IF and LIF neurons, poolings, sums and products.

    Args:
        network: regularizers folded in, as `bench.load` gives it; it is left as it is.

    Raises:
        BenchError: there is something else in it; names it.
    """
    if network.learning != "gradient":
        raise BenchError(f"{type(network).__name__} learns by a local rule: its neurons are in no exchange format")
    if network.spec.neuron.name == "relu":
        raise BenchError("neuron=relu is the twin without spikes: there is no time step to export; train neuron=if")
    # A copy, on the CPU and in eval mode: following it touches its layers.
    network.forget()
    network = copy.deepcopy(network).cpu().double().eval()
    list(network.spiking_layers())
    tracer = _Tracer(network)
    try:
        traced = tracer.trace(network)
    except Exception as error:  # whatever a network's own code makes of values that are not there
        raise BenchError(
            f"the forward pass of {type(network).__name__} depends on values in a way that cannot be written down as a "
            f"graph ({one_line(error)})"
        ) from error
    walk = _Walk(network)
    with torch.no_grad():
        last = walk.walk(traced)
        walk.add(walk.free("head"), _affine(network.head), (last.name,))
        return Graph(tuple(walk.nodes.values()), network.time_steps, _read(network))


class _Tracer(fx.Tracer):
    """Follows `features`, with layers and fused blocks as single steps."""

    def __init__(self, network: SpikingNetwork) -> None:
        super().__init__(autowrap_functions=(fire_block,))
        self.traced_func_name = "features"
        if network.spiking_input and hasattr(network, "encode"):
            # Input spikes come from outside: how they are drawn is no part of the network.
            network.encode = lambda x: self.create_proxy("call_function", _encoded, (x,), {})  # type: ignore[assignment]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Spiking) or not any(True for _ in m.children()) or isinstance(m, nn.Conv2d | nn.Linear)


def _encoded(x: Tensor) -> Tensor:
    """Stands for an encoding in the traced pass."""
    return x


@dataclass(frozen=True)
class _Value:
    """What a step of the traced pass gives.

    Attributes:
        name: of the node that computes it.
        time: where its time axis is: `none` (the same at every step, `[N, ...]`), `merged` (`[T * N, ...]`), or `apart`
            (`[T, N, ...]`).
    """

    name: str
    time: str


class _Walk:
    """Goes through a traced pass and writes down what a time step of it computes."""

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network
        self.names = {module: name for name, module in network.named_modules()}
        self.nodes: dict[str, Node] = {}
        self.values: dict[fx.Node, Any] = {}

    def walk(self, traced: fx.Graph) -> _Value:
        for node in traced.nodes:
            self.values[node] = self.step(node)
        last: _Value = self.values[next(node for node in traced.nodes if node.op == "output")]
        if not isinstance(last, _Value) or last.time != "apart":
            raise BenchError(f"the features of {type(self.network).__name__} are not [T, N, F]")
        if len(self.nodes[last.name].shape) != 1:
            raise BenchError(f"the features of {type(self.network).__name__} are not flat")
        return last

    def step(self, node: fx.Node) -> Any:
        """The value of one step."""
        args: Any
        kwargs: Any
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda before: self.values[before])
        if node.op == "placeholder":
            return _Value(self.add("input", Input(False), (), self.network.spec.image_shape), "none")
        if node.op == "output":
            return args[0]
        if node.op == "get_attr":
            return self.module(str(node.target))
        if node.op == "call_module":
            # A norm is folded into what stands before it, which nobody else may read then.
            shared = any(len(before.users) > 1 for before in node.all_input_nodes)
            return self.layer(self.module(str(node.target)), args[0], shared)
        if node.target is fire_block:
            return self.block(**inspect.signature(fire_block).bind(*args, **kwargs).arguments)
        if node.target is _encoded:
            flat = (math.prod(self.network.spec.image_shape),)
            self.nodes.clear()
            return _Value(self.add("input", Input(True), (), flat), "apart")
        return self.function(node, args, kwargs)

    def module(self, path: str) -> Any:
        """A submodule or other attribute."""
        found: Any = self.network
        for part in path.split("."):
            found = getattr(found, part)
        return found

    def block(
        self,
        conv_norm: nn.Module,
        spiking: Spiking,
        x: _Value,
        pool: nn.Module | None = None,
        repeat: bool = False,
        add: _Value | None = None,
    ) -> _Value:
        """What `fire_block` does."""
        for part in conv_norm.children():
            x = self.layer(part, x)
        x = self.layer(spiking, _Value(x.name, "merged") if repeat else x)
        if add is not None:
            x = self.both(Add(), x, add)
        return x if pool is None else self.layer(pool, x)

    def layer(self, module: nn.Module, x: _Value, shared: bool = False) -> _Value:
        """A module's part."""
        path = self.names[module]
        if module._forward_hooks or module._forward_pre_hooks:
            raise BenchError(f"a hook changes what '{path}' computes: it is in no exchange format")
        if isinstance(module, Spiking):
            return self.spiking(module, path, x)
        if isinstance(module, nn.Conv2d | nn.Linear):
            return self.after(x, path, _affine(module))
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            return self.after(x, path, _pool(module, path))
        if isinstance(module, nn.Flatten) and module.start_dim == 1:
            return self.flat(x)
        shape = self.nodes[x.name].shape
        if changes_nothing(module, shape, self.network.time_steps):
            return x
        before = self.nodes[x.name]
        if shared or not isinstance(before.operation, Affine):
            raise BenchError(f"'{path}' ({type(module).__name__}) stands where no exchange format has anything like it")
        scale, shift = per_channel(module, shape, self.network.time_steps, path)
        weight = before.operation.weight * scale.view(-1, *[1] * (before.operation.weight.ndim - 1))
        folded = replace(before.operation, weight=weight, bias=before.operation.bias * scale + shift)
        self.nodes[x.name] = replace(before, operation=folded)
        return x

    def spiking(self, layer: Spiking, path: str, x: _Value) -> _Value:
        """Neurons."""
        config, shape, kind = layer.config, self.nodes[x.name].shape, type(layer).__name__
        if type(layer) is not Spiking or config.name not in ("if", "lif", "plif"):
            raise BenchError(
                f"the neurons of '{path}' ({kind if type(layer) is not Spiking else config.name}) are in no exchange "
                "format; neuron=if, lif or plif are, in the networks that use them"
            )
        if layer.trigger is not None:
            raise BenchError(
                f"the neurons of '{path}' fire by a {type(layer.trigger).__name__}, not at a common threshold: it is "
                "in no exchange format; train without that regularizer"
            )
        for slot in (layer.current, layer.spikes):
            for module in slot:
                if not changes_nothing(module, shape, self.network.time_steps):
                    raise BenchError(
                        f"'{self.names[module]}' ({type(module).__name__}) changes what the neurons of '{path}' are "
                        "given or give: it is in no exchange format; train without that regularizer"
                    )
        tau = None if config.name == "if" else config.tau
        if config.name == "plif":
            tau = 1.0 / float(layer.neuron.w.sigmoid())
        neuron = Neuron(path, config.v_threshold, config.v_reset, tau, config.decay_input)
        return self.after(x, path, neuron)

    def function(self, node: fx.Node, args: Any, kwargs: Any) -> _Value:
        """A call of a function or of a tensor's method."""
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        first, *rest = args
        steps = self.network.time_steps
        match name, rest:
            case "add" | "iadd", [_Value() as other] if not kwargs:
                return self.both(Add(), first, other)
            case "mul" | "imul", [_Value() as other] if not kwargs:
                return self.both(Multiply(), first, other)
            case "sub" | "rsub", [_Value() as other] if first == 1 and not kwargs:
                return self.after(other, "complement", Complement())
            case "expand", [int(times), *shape] if times == steps and first.time == "none" and set(shape) == {-1}:
                return _Value(first.name, "apart")
            case "flatten", [0, 1] if first.time == "apart":
                return _Value(first.name, "merged")
            case "unflatten", [0, (int(times), -1)] if times == steps and first.time == "merged":
                return _Value(first.name, "apart")
            case "flatten", [1] if first.time != "apart":
                return self.flat(first)
            case "mean", [(2, 3)] if first.time == "merged" and not kwargs:
                side = self.nodes[first.name].shape[1:]
                return self.flat(self.after(first, "mean", Pool(False, side, side)))  # type: ignore[arg-type]
            case "avg_pool2d", [int(size)] if first.time == "merged" and not kwargs:
                return self.after(first, "pool", Pool(False, (size, size), (size, size)))
        raise BenchError(
            f"{type(self.network).__name__} uses `{name}`, which is in no exchange format as it is used there"
        )

    def flat(self, x: _Value) -> _Value:
        return x if len(self.nodes[x.name].shape) == 1 else self.after(x, "flatten", Flatten())

    def after(self, x: _Value, path: str, operation: Operation) -> _Value:
        return _Value(self.add(self.free(path), operation, (x.name,)), x.time)

    def both(self, operation: Operation, one: _Value, other: _Value) -> _Value:
        if one.time != other.time:
            raise BenchError(f"{type(self.network).__name__} adds what changes with time to what does not")
        return _Value(self.add(self.free("sum"), operation, (one.name, other.name)), one.time)

    def free(self, path: str) -> str:
        """A name that no node has yet."""
        name, count = path.replace(".", "_"), 1
        while (tried := name if count == 1 else f"{name}_{count}") in {*self.nodes, "input", "output", "logits"}:
            count += 1
        return tried

    def add(
        self, name: str, operation: Operation, inputs: tuple[str, ...], shape: tuple[int, ...] | None = None
    ) -> str:
        if shape is None:
            values = [torch.zeros(1, *self.nodes[each].shape, dtype=torch.float64) for each in inputs]
            shape = tuple(compute(operation, *values).shape[1:])
        self.nodes[name] = Node(name, operation, inputs, shape)
        return name


def compute(operation: Operation, x: Tensor, other: Tensor | None = None) -> Tensor:
    """The value of an operation without a state; that of neurons has the shape of their input.

    Args:
        operation: other than `Input`.
        x: `[N, ...]`.
        other: `[N, ...]`, of those that have two.
    """
    match operation:
        case Affine(is_conv=True):
            conv = operation
            return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        case Affine():
            return F.linear(x, operation.weight, operation.bias)
        case Pool(largest=True):
            return F.max_pool2d(x, operation.kernel, operation.stride, operation.padding)
        case Pool():
            return F.avg_pool2d(x, operation.kernel, operation.stride, operation.padding)
        case Flatten():
            return x.flatten(1)
        case Add() | Multiply():
            assert other is not None
            return x + other if isinstance(operation, Add) else x * other
        case Complement():
            return 1 - x
    return x


def changes_nothing(module: nn.Module, shape: tuple[int, ...], time_steps: int) -> bool:
    """Whether a module gives back what it is given, as dropout does in eval mode.

    Args:
        module: in eval mode and float64.
        shape: of what it is given, without the batch.
        time_steps: T.
    """
    if isinstance(module, nn.Identity):
        return True
    x = _drawn(shape, time_steps)
    return torch.equal(_tried(module, x), x)


def per_channel(module: nn.Module, shape: tuple[int, ...], time_steps: int, path: str) -> tuple[Tensor, Tensor]:
    """Scale and shift `[C]` of a norm, which must be just that, and the same at every time step.

    They are found by what it makes of zeros and ones, and tried on other values.

    Args:
        module: in eval mode and float64.
        shape: of what it is given, without the batch.
        time_steps: T.
        path: its name, for the message.

    Raises:
        BenchError: it is something else.
    """
    x = _drawn(shape, time_steps)
    at_zero, at_one = (_tried(module, torch.full_like(x, value)) for value in (0.0, 1.0))
    got = _tried(module, x)
    if at_zero.shape == x.shape == got.shape and got.dtype == x.dtype:
        shift = at_zero[0].reshape(len(at_zero[0]), -1)[:, 0]
        scale = at_one[0].reshape(len(at_one[0]), -1)[:, 0] - shift
        wide = (1, -1, *[1] * (x.ndim - 2))
        if torch.allclose(got, x * scale.view(wide) + shift.view(wide), rtol=1e-9, atol=1e-9):
            return scale, shift
    raise BenchError(
        f"'{path}' ({type(module).__name__}) is no scale and shift of each channel that is alike at every time step: "
        "it cannot be folded into the weights before it; train with plain batch norm"
    )


def _tried(module: nn.Module, x: Tensor) -> Tensor:
    """What a module makes of values; nothing at all where it does not take them."""
    try:
        result = module(x.clone())
    except Exception:  # a module that wants other shapes is none of those that can be written down
        return x.new_empty(0)
    return result if isinstance(result, Tensor) else x.new_empty(0)


def _drawn(shape: tuple[int, ...], time_steps: int) -> Tensor:
    """Values `[T * 2, ...]` that no rule but the identity's leaves as they are."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2 * time_steps, *shape, generator=draw, dtype=torch.float64)


def _affine(layer: nn.Module) -> Affine:
    parts: Any = layer
    weight: Tensor = parts.weight.detach()
    bias = weight.new_zeros(len(weight)) if parts.bias is None else parts.bias.detach()
    if not isinstance(layer, nn.Conv2d):
        return Affine(weight, bias)
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise BenchError(
            f"a convolution pads by '{layer.padding_mode}', '{layer.padding}': only zeros, counted, are known"
        )
    return Affine(weight, bias, parts.stride, parts.padding, parts.dilation, parts.groups)


def _pool(pool: nn.MaxPool2d | nn.AvgPool2d, path: str) -> Pool:
    largest = isinstance(pool, nn.MaxPool2d)
    pairs: Any = [
        (size, size) if isinstance(size, int) else size for size in (pool.kernel_size, pool.stride, pool.padding)
    ]
    plain = not pool.ceil_mode and (
        pool.dilation == 1
        if isinstance(pool, nn.MaxPool2d)
        else pool.divisor_override is None and pool.count_include_pad
    )
    if not plain:
        raise BenchError(f"'{path}' ({type(pool).__name__}) is no plain pooling")
    return Pool(largest, *pairs)


def _read(network: SpikingNetwork) -> str:
    """How a network makes its answer of the steps' logits, tried on some."""
    logits = _drawn((3, network.head.out_features), network.time_steps).unflatten(0, (2, -1))[0]
    got = network.read(logits)
    ways: dict[str, Callable[[Tensor], Tensor]] = {"mean": lambda x: x.mean(0), "sum": lambda x: x.sum(0)}
    for way, rule in ways.items():
        if torch.allclose(got, rule(logits)):
            return way
    raise BenchError(f"{type(network).__name__} reads its logits in a way of its own: neither their mean nor their sum")
