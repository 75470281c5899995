"""A network's time step as a graph of the Neuromorphic Intermediate Representation, in its HDF5 file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bench.errors import BenchError
from bench.exchange.graph import Add, Affine, Complement, Flatten, Graph, Input, Multiply, Neuron, Node, Pool
from bench.files import whole

DT = 1e-4
"""Seconds a time step stands for. NIR's neurons live in continuous time: this is what SpikingJelly's and snnTorch's
readers take a step for."""

CONVENTION = (
    f"One time step is dt = {DT:g} s, by Euler's rule. IF: v += dt R I, with R = 1 / dt. LIF: v += dt / tau ((v_leak - "
    "v) + R I), with tau = dt times the time constant in steps, and R = 1, or that constant where the leak does not "
    "divide the input. Neurons fire at v >= v_threshold after charging, and are reset in the same step."
)
"""How the suite's discrete-time neurons are written down; it stands in every file."""


def nir_graph(graph: Graph, said: Mapping[str, str | int | float] | None = None) -> Any:
    """The `nir.NIRGraph` of a network's time step.

    Batch norms are folded into the convolutions before them, sums are edges that converge, mean poolings `AvgPool2d`.
    What NIR has no field for is in the graph's metadata: `reset` (`hard` or `soft`), `read` (`mean` or `sum` over the
    steps' outputs), `input`, `time_steps`, `dt`, `convention`, and in that of each neuron, `layer`, its name in the
    network.

    Args:
        graph: of the network.
        said: more for the metadata.

    Raises:
        BenchError: the network has something that NIR lacks, or nir is not installed.
    """
    nir = _nir()
    resets = {"soft" if neuron.v_reset is None else "hard" for _, neuron in graph.neurons}
    if len(resets) > 1:
        raise BenchError("its layers are reset in two ways, hard and soft: NIR's graphs have no place to say which")
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    sources: dict[str, tuple[str, ...]] = {}
    shapes = {node.name: node.shape for node in graph.nodes}
    for node in graph.nodes:
        before = tuple(source for name in node.inputs for source in sources[name])
        if len(set(before)) < len(before):
            raise BenchError(f"'{node.name}' adds a value to itself, which NIR's edges cannot say")
        if isinstance(node.operation, Add):
            sources[node.name] = before
            continue
        nodes[node.name] = _node(nir, node, shapes)
        edges += [(source, node.name) for source in before]
        sources[node.name] = (node.name,)
    last = graph.nodes[-1]
    nodes["output"] = nir.Output(output_type={"output": np.array(last.shape)})
    edges += [(source, "output") for source in sources[last.name]]
    spikes = any(isinstance(node.operation, Input) and node.operation.spikes for node in graph.nodes)
    metadata = {
        **(said or {}),
        "reset": resets.pop() if resets else "none",
        "read": graph.read,
        "time_steps": graph.time_steps,
        "dt": DT,
        "input": "spikes of the step" if spikes else "the normalized image, the same at every step",
        "convention": CONVENTION,
    }
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=metadata)


def write_nir(path: Path, graph: Graph, said: Mapping[str, str | int | float] | None = None) -> None:
    """Write `nir_graph` to a file, which `nir.read` reads.

    Args:
        path: of the file; one that is there is replaced.
        graph: of the network.
        said: more for the metadata.

    Raises:
        BenchError: as `nir_graph`.
        EnvironmentFault: the file cannot be written.
    """
    content = io.BytesIO()
    _nir().write(content, nir_graph(graph, said))
    with whole(path) as part:
        part.write_bytes(content.getvalue())


def dense(weight: Tensor, groups: int) -> Tensor:
    """The weight of a convolution in groups as that of one without, 0 between groups.

    nir itself takes C_in / groups for the channels of the input and refuses the graph, and SpikingJelly's reader
    refuses groups; the zeros cost next to nothing in a compressed file.

    Args:
        weight: `[C_out, C_in / groups, kH, kW]`.
        groups: of the convolution.

    Returns:
        `[C_out, C_in, kH, kW]`.
    """
    outs, ins = weight.shape[:2]
    result = weight.new_zeros(outs, ins * groups, *weight.shape[2:])
    for group, part in enumerate(weight.chunk(groups)):
        result[group * len(part) : (group + 1) * len(part), group * ins : (group + 1) * ins] = part
    return result


def _nir() -> Any:
    try:
        import nir
    except ModuleNotFoundError as error:
        raise BenchError("--nir needs nir, which is not installed: pip install 'snn-bench[export]'") from error
    return nir


def _array(values: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    result: np.ndarray[Any, np.dtype[np.float32]] = values.float().numpy()
    return result


def _node(nir: Any, node: Node, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """The primitive of one operation."""
    match node.operation:
        case Input():
            return nir.Input(input_type={"input": np.array(node.shape)})
        case Affine(is_conv=True):
            conv = node.operation
            return nir.Conv2d(
                input_shape=shapes[node.inputs[0]][1:], weight=_array(dense(conv.weight, conv.groups)),
                stride=conv.stride, padding=conv.padding, dilation=conv.dilation, groups=1, bias=_array(conv.bias),
                metadata={"groups": conv.groups},
            )  # fmt: skip
        case Affine():
            return nir.Affine(weight=_array(node.operation.weight), bias=_array(node.operation.bias))
        case Neuron():
            return _neuron(nir, node.operation, node.shape)
        case Pool(largest=True):
            raise BenchError(f"'{node.name}' takes the largest value, which NIR cannot say: train with model.pool=avg")
        case Pool():
            pool = node.operation
            kernel, stride, padding = map(np.array, (pool.kernel, pool.stride, pool.padding))
            return nir.AvgPool2d(kernel_size=kernel, stride=stride, padding=padding)
        case Flatten():
            return nir.Flatten(input_type={"input": np.array(shapes[node.inputs[0]])}, start_dim=0, end_dim=-1)
        case Multiply() | Complement():
            raise BenchError(
                f"'{node.name}' multiplies the values of two layers, which NIR cannot say: train with model.cnf=ADD"
            )
    raise BenchError(f"'{node.name}' is nothing that NIR can say")


def _neuron(nir: Any, neuron: Neuron, shape: tuple[int, ...]) -> Any:
    """Neurons as NIR's IF or LIF."""

    def full(value: float) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.full(shape, value, np.float32)

    common = {"v_threshold": full(neuron.threshold), "v_reset": full(neuron.rest), "metadata": {"layer": neuron.layer}}
    if neuron.tau is None:
        return nir.IF(r=full(1 / DT), **common)
    r = 1.0 if neuron.decay_input else neuron.tau
    return nir.LIF(tau=full(neuron.tau * DT), r=full(r), v_leak=full(neuron.rest), **common)
