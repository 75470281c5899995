"""A network's time step as an ONNX model, with membrane potentials as inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import BenchError
from bench.exchange.graph import Add, Affine, Complement, Flatten, Graph, Input, Multiply, Neuron, Node, Pool
from bench.files import whole

OPSET = 17
"""Of the operators: every runtime since 2022 has it."""

IR_VERSION = 8
"""The file format of that time."""


def onnx_model(graph: Graph, said: Mapping[str, str | int | float] | None = None) -> Any:
    """The `onnx.ModelProto` of a network's time step, float32, for any batch size N.

    Inputs are `input` `[N, C, H, W]` (the normalized image, at each of T steps the same) or `[N, F]` (this step's input
    spikes), and for each spiking layer `NAME.v`, its potentials `[N, ...]`. Outputs are `logits` `[N, classes]` of the
    step, for each layer `NAME.v_next`, which the next step is given, and `NAME.spikes`. A pass starts from the
    potentials of rest, which are in the metadata under `NAME.rest`; the answer is the mean or sum of the steps' logits,
    as `read` there says.

    Args:
        graph: of the network.
        said: more for the metadata.

    Raises:
        BenchError: onnx is not installed.
    """
    onnx = _onnx()
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    build = _Build(onnx)
    inputs, outputs, rests = [], [], {}
    for node in graph.nodes:
        if isinstance(node.operation, Input):
            inputs.append(helper.make_tensor_value_info(node.name, number, ["N", *node.shape]))
            continue
        build.write(node)
        if isinstance(node.operation, Neuron):
            inputs.append(helper.make_tensor_value_info(f"{node.name}.v", number, ["N", *node.shape]))
            outputs += [
                helper.make_tensor_value_info(f"{node.name}.{kind}", number, ["N", *node.shape])
                for kind in ("v_next", "spikes")
            ]
            rests[f"{node.name}.rest"] = node.operation.rest
    last = graph.nodes[-1]
    build.emit("Identity", [last.name], "logits")
    outputs.insert(0, helper.make_tensor_value_info("logits", number, ["N", *last.shape]))
    model = helper.make_model(
        helper.make_graph(build.nodes, "step", inputs, outputs, build.constants),
        producer_name="snn-bench",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
        doc_string="One time step of a spiking network: feed every NAME.v_next into NAME.v of the next step.",
    )
    metadata = {**(said or {}), "read": graph.read, "time_steps": graph.time_steps, **rests}
    helper.set_model_props(model, {key: str(value) for key, value in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def write_onnx(path: Path, graph: Graph, said: Mapping[str, str | int | float] | None = None) -> None:
    """Write `onnx_model` to a file.

    Args:
        path: of the file; one that is there is replaced.
        graph: of the network.
        said: more for the metadata.

    Raises:
        BenchError: as `onnx_model`.
        EnvironmentFault: the file cannot be written.
    """
    content: bytes = onnx_model(graph, said).SerializeToString()
    with whole(path) as part:
        part.write_bytes(content)


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise BenchError("--onnx needs onnx, which is not installed: pip install 'snn-bench[export]'") from error
    return onnx


class _Build:
    """The nodes and constants of a model while it is written."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def emit(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """One operator; its output's name is its own."""
        made = self.onnx.helper.make_node(operator, inputs, [output], name=f"{operator}:{output}", **attributes)
        self.nodes.append(made)
        return output

    def constant(self, name: str, value: Tensor | float) -> str:
        """A tensor or number, float32."""
        import numpy as np

        array = value.float().numpy() if isinstance(value, Tensor) else np.float32(value)
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def write(self, node: Node) -> None:
        """The operators of one operation."""
        name, inputs = node.name, list(node.inputs)
        match node.operation:
            case Affine(is_conv=True):
                conv = node.operation
                weights = [self.constant(f"{name}.weight", conv.weight), self.constant(f"{name}.bias", conv.bias)]
                self.emit(
                    "Conv", [*inputs, *weights], name, strides=conv.stride, pads=conv.padding * 2,
                    dilations=conv.dilation, group=conv.groups,
                )  # fmt: skip
            case Affine():
                linear = node.operation
                weights = [self.constant(f"{name}.weight", linear.weight), self.constant(f"{name}.bias", linear.bias)]
                self.emit("Gemm", [*inputs, *weights], name, transB=1)
            case Neuron():
                self.neuron(name, inputs[0], node.operation)
            case Pool(largest=largest):
                pool = node.operation
                counted = {} if largest else {"count_include_pad": 1}
                operator = "MaxPool" if largest else "AveragePool"
                sides = {"kernel_shape": pool.kernel, "strides": pool.stride, "pads": pool.padding * 2}
                self.emit(operator, inputs, name, **sides, **counted)
            case Flatten():
                self.emit("Flatten", inputs, name, axis=1)
            case Add():
                self.emit("Add", inputs, name)
            case Multiply():
                self.emit("Mul", inputs, name)
            case Complement():
                self.emit("Sub", [self.constant(f"{name}.one", 1.0), *inputs], name)

    def neuron(self, name: str, x: str, neuron: Neuron) -> None:
        """Charge, fire, reset."""
        v = f"{name}.v"
        threshold = self.constant(f"{name}.threshold", neuron.threshold)
        if neuron.tau is not None:
            rate = self.constant(f"{name}.rate", 1 / neuron.tau)
            above = v
            if neuron.rest:
                above = self.emit("Sub", [v, self.constant(f"{name}.at_rest", neuron.rest)], f"{name}.above")
            v = self.emit("Sub", [v, self.emit("Mul", [above, rate], f"{name}.leak")], f"{name}.leaked")
            if neuron.decay_input:
                x = self.emit("Mul", [x, rate], f"{name}.input")
        charged = self.emit("Add", [v, x], f"{name}.charged")
        fires = self.emit("GreaterOrEqual", [charged, threshold], f"{name}.fires")
        self.emit("Cast", [fires], name, to=self.onnx.TensorProto.FLOAT)
        self.emit("Identity", [name], f"{name}.spikes")
        if neuron.v_reset is None:
            lost = self.emit("Mul", [name, threshold], f"{name}.lost")
            self.emit("Sub", [charged, lost], f"{name}.v_next")
        else:
            self.emit("Where", [fires, self.constant(f"{name}.reset", neuron.v_reset), charged], f"{name}.v_next")
