"""Networks by name are those that a run builds; what they answer to raw images is worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench.config.component import build, settings
from bench.config.compose import compose
from bench.data import prepare
from bench.errors import BenchError
from bench.models.base import Spec
from bench.registry import MODELS
from bench.seeds import seed_everything
from bench.training.setup import make_task

SMALL: dict[str, dict[str, Any]] = {
    "sew": {"channels": 4}, "convmixer": {"width": 8, "depth": 1}, "mlp": {"hidden": [8]},
    "diehl_cook": {"neurons": 10}, "diet": {"convs": [4, 0], "hidden": [8]}, "srm": {}, "cnn": {"channels": 4},
}  # fmt: skip


def test_it_is_the_network_of_a_run(shared_data: Any) -> None:
    """The same settings, drawn from the same seed: the same weights."""
    cfg = compose([f"data.root={shared_data}", "model=cnn", "model.channels=8", "neuron=lif", "seed=4", "size=full"])
    task = make_task(cfg, prepare(settings(cfg.data), seed=4, batch_size=8))
    seed_everything(4, "init")
    network = bench.create_model("cnn", image_shape=(1, 32, 32), neuron="lif", channels=8)
    expected = task.model.state_dict()
    assert expected.keys() == network.state_dict().keys()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert network.spec.neuron == task.model.spec.neuron


@pytest.mark.parametrize("name", bench.list_models())
def test_every_network_is_made_and_answers(name: str) -> None:
    neuron = "lif" if name == "diehl_cook" else "if"
    own = bench.create_model(name, image_shape=(1, 32, 32), num_classes=5, neuron=neuron, **SMALL.get(name, {}))
    kind = (
        build(MODELS, compose([f"model={name}", "size=full"]).model, spec=Spec((1, 32, 32), 5))
        if name == "cnn"
        else own
    )
    assert type(kind) is type(own)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32), dtype=np.uint8)
    seen = own.predict(images)
    assert seen.probabilities.shape[0] == 2
    assert seen.spikes is None or (seen.spikes >= 0).all()
    assert set(seen.labels) <= {*map(str, range(5)), "no answer"}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("cn", {}, r"no model is called 'cn'\. Did you mean 'cnn'"),
        ("cnn", {"chanels": 3}, r"model 'cnn' has no argument 'chanels'\. Did you mean 'channels'"),
        ("cnn", {"channels": "many"}, "model 'cnn': channels is 'many', it must be a whole number"),
        ("cnn", {"channels": 0}, r"model\.channels is 0"),
        ("cnn", {"neuron": "lift"}, r"no neuron is called 'lift'\. Did you mean 'lif'"),
        ("cnn", {"neuron": {"name": "lif", "taw": 3.0}}, r"a neuron has no setting 'taw'\. Did you mean 'tau'"),
        ("cnn", {"image_shape": (32, 32)}, r"image_shape is \(32, 32\), and must be \(channels, height, width\)"),
        ("cnn", {"image_shape": (3, 4, 4)}, "halves the image 4 times"),
        ("cnn", {"num_classes": 0}, "num_classes is 0"),
        ("cnn", {"labels": ("a", "b")}, "labels has 2 names, and num_classes is 10"),
        ("cnn", {"mean": (0.1, 0.2)}, "mean has 2 numbers, and the images have 3"),
        ("cnn", {"time_steps": 0}, "time_steps is 0"),
    ],
)
def test_a_wrong_argument_is_a_line(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=said) as caught:
        bench.create_model(name, **arguments)
    assert "\n" not in str(caught.value)


def test_answers_step_by_step() -> None:
    """A head that counts each step's spikes of one neuron per class: softmax of the means so far, by hand."""
    network = bench.create_model(
        "cnn", image_shape=(1, 2, 2), num_classes=2, channels=2, depth=1, labels=("cat", "dog")
    )
    with torch.no_grad():
        network.convs[0].conv.weight.zero_()
        # Channel 0 fires at each step, channel 1 at every second.
        network.convs[0].norm.bias.copy_(torch.tensor([1.0, 0.5]))
        network.convs[0].conv.bias.zero_()
        network.head.weight.copy_(torch.eye(2))
        network.head.bias.copy_(torch.tensor([0.0, 0.7]))
    seen = network.predict(np.zeros((3, 2, 2), np.uint8))
    rates = torch.tensor([[1, 0], [1, 1 / 2], [1, 1 / 3], [1, 1 / 2]])
    expected = (rates + torch.tensor([0.0, 0.7])).softmax(1)
    torch.testing.assert_close(seen.by_step[:, 0], expected)
    torch.testing.assert_close(seen.probabilities[2], expected[-1])
    assert seen.labels == ("dog",) * 3
    assert seen.spikes is not None
    # 4 neurons of one channel at 4 steps, 4 of the other at 2.
    assert seen.spikes.tolist() == [24, 24, 24]
    raster = network.raster(np.zeros((2, 2), np.uint8))
    assert raster["spikings.0"].sum(1).tolist() == [4, 8, 4, 8]


def test_raw_images_of_every_kind() -> None:
    """uint8 and floats, channels first or last, one or several: the same pixels, normalized by hand."""
    made = bench.create_model(
        "cnn", image_shape=(3, 8, 6), channels=4, depth=1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
    )
    made.eval()
    raw = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 6), dtype=np.uint8)
    pixels = torch.from_numpy(raw) / 255
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    with torch.no_grad():
        expected = made((pixels - mean) / std).softmax(1)
    for images in (raw, torch.from_numpy(raw), pixels, raw.transpose(0, 2, 3, 1), list(raw)):
        torch.testing.assert_close(made.predict(images).probabilities, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made.predict(raw[0]).probabilities, expected[:1], rtol=1e-3, atol=1e-4)
    photo = Image.fromarray(raw[1].transpose(1, 2, 0))
    torch.testing.assert_close(made.predict(np.asarray(photo)).probabilities, expected[1:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made.predict(raw, batch_size=1).probabilities, expected, rtol=1e-3, atol=1e-4)
    made.train()
    made.predict(raw)
    assert made.training


def test_images_are_padded_as_those_of_the_data_set_were() -> None:
    """28 x 28 in a network of 32 x 32, as MNIST: the same as with two pixels of zeros on each side."""
    spec = Spec((1, 32, 32), 10, raw_shape=(1, 28, 28), mean=(0.1,), std=(0.3,))
    made = build(MODELS, compose(["model=cnn", "model.channels=4"]).model, spec=spec)
    raw = np.random.default_rng(1).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    padded = np.pad(raw, ((0, 0), (2, 2), (2, 2)))
    assert torch.equal(made.predict(raw).probabilities, made.predict(padded).probabilities)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((2, 9, 9), np.uint8), r"images of shape \[2, 9, 9\] do not fit: the network takes 8 x 8 pixels of 1"),
        (np.zeros((2, 3, 8, 8), np.uint8), "do not fit"),
        (np.full((8, 8), 255.0), r"floats must lie in \[0, 1\]"),
        (np.full((8, 8), np.nan), r"floats must lie in \[0, 1\]"),
        (np.zeros((8, 8), np.int64), "must be uint8"),
    ],
)
def test_images_that_do_not_fit_are_a_line(images: Any, said: str) -> None:
    network = bench.create_model("cnn", image_shape=(1, 8, 8), channels=4, depth=2)
    with pytest.raises(BenchError, match=said):
        network.predict(images)
