"""ONNX models of a time step, run by ONNX Runtime over T steps, give the network's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import bench
from bench.exchange.graph import follow
from bench.exchange.to_onnx import write_onnx

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

T = 4


@pytest.mark.parametrize(
    ("name", "neuron", "arguments"),
    [
        ("cnn", {"name": "if"}, {"depth": 2, "channels": 4}),
        ("cnn", {"name": "if", "v_reset": None, "v_threshold": 0.7}, {"depth": 2, "channels": 4, "pool": "avg"}),
        ("cnn", {"name": "lif", "tau": 1.5, "v_reset": -0.2}, {"depth": 2, "channels": 4}),
        ("sew", {"name": "lif", "tau": 3.0, "decay_input": False}, {"depth": 2, "channels": 4}),
        ("sew", {"name": "plif"}, {"depth": 1, "channels": 4, "cnf": "AND"}),
        ("sew", {"name": "if"}, {"depth": 1, "channels": 4, "cnf": "IAND"}),
        ("convmixer", {"name": "if"}, {"width": 4, "depth": 1, "kernel": 3, "patch": 2}),
        ("mlp", {"name": "if"}, {"hidden": [12, 8]}),
    ],
)
def test_steps_give_the_logits(name: str, neuron: dict[str, Any], arguments: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = bench.create_model(name, image_shape=(1, 8, 8), neuron=neuron, time_steps=T, **arguments).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1.0, 3.0)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.3, 1.5)
    images = torch.randn(64, 1, 8, 8)
    with torch.no_grad():
        expected = network.by_step(images)
    spikes = [layer.fired for _, layer in network.spiking_layers()]
    write_onnx(tmp_path / "net.onnx", follow(network), {"run": "a"})
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    said = session.get_modelmeta().custom_metadata_map
    assert (said["read"], said["time_steps"], said["run"]) == ("mean", str(T), "a")
    state = {
        each.name: np.full((64, *each.shape[1:]), float(said[each.name[:-1] + "rest"]), np.float32)
        for each in session.get_inputs()
        if each.name != "input"
    }
    assert len(state) == len(spikes)
    names = [each.name for each in session.get_outputs()]
    for t in range(T):
        got = dict(zip(names, session.run(None, {"input": images.numpy(), **state}), strict=True))
        # A spike at the threshold may go either way: an image in a thousand, none here.
        assert np.allclose(got["logits"], expected[t].numpy(), atol=1e-4)
        for layer, fired in zip(state, spikes, strict=True):
            assert got[layer[:-1] + "spikes"].sum() == fired[t].sum().item()
        state = {layer: got[f"{layer}_next"] for layer in state}
    assert spikes[0].any()
