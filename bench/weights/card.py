"""The card of a trained network: what it is, what it scored and cost, and how to use it, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bench import energy, markdown
from bench.records.schema import FIELD

LICENCE = "mit"
"""Of the weights, as of the suite; data sets have terms of their own."""

SHOWN = (
    "test.acc", "train.acc_eval", "gap", "test.loss", "test.spike_rate", "test.spike_rate_layer_mean",
    "synops_per_image", "synops_nonbinary_per_image", "macs_per_image", "energy_uj", "dead", "saturated",
    "params",
)  # fmt: skip
"""The numbers of the record that a card has."""

USE = """\
```python
import bench

network = bench.load("{where}")
answers = network.predict(images)  # uint8 [N, {shape}] as the data set has them: pixels, not normalized
answers.labels, answers.probabilities, answers.spikes
```
"""


def card(result: Mapping[str, Any], said: Mapping[str, Any], where: str = "FOLDER") -> str:
    """The card of a run's network.

    Args:
        result: the run's record.
        said: of `bench.weights.about.about`, with `run_id` and `commit`.
        where: what `bench.load` is given to get it.
    """
    regs = ", ".join(f"{name} ({_arguments(own)})" if own else name for name, own in result["regs"].items())
    protocol = (
        f"{result['optimizer']}, rate {result['lr']:g}, weight decay {result['weight_decay']:g}, batch "
        f"{result['batch_size']}, {result['epochs']} epochs of {result['train_images']:,} images, budget "
        f"{result['budget']}; the last epoch is what counts, and no epoch was chosen by its test accuracy"
    )
    facts = [
        ("network", f"{said['model']['name']} ({_arguments(said['model']['args'])})"),
        ("neuron", f"{_arguments(said['neuron'])}; T = {result['time_steps']}"),
        ("regularizers", regs),
        ("data", f"{result['data']}, {result['data_copy']} copy, SHA-256 {result['data_checksum']}"),
        ("classes", ", ".join(map(str, said["classes"]))),
        ("images", f"[C, H, W] = {said['raw_shape']}, which the network takes as {said['image_shape']}"),
        ("normalization", f"mean {_numbers(said['mean'])}, standard deviation {_numbers(said['std'])}"),
        ("protocol", protocol),
        ("seed", str(result["seed"])),
        ("precision", result["precision"]),
        ("numerics", str(result["numerics"])),
        ("suite", f"snn-bench {said['suite']}, commit {result['commit'] or 'unknown'}"),
        ("run", result["run_id"]),
    ]
    numbers = [
        (FIELD[key].title or key.replace("_", " "), _shown(key, value), FIELD[key].says)
        for key in SHOWN
        if (value := FIELD[key].value(result)) is not None
    ]
    return "\n".join(
        [
            _front(result),
            f"# {result['model']} on {result['data']}, regularizers: {result['reg']}\n",
            "A spiking neural network trained by surrogate gradients with "
            "snn-bench; regularizers are folded into its weights.\n",
            USE.format(where=where, shape=", ".join(map(str, said["raw_shape"]))),
            markdown.table(("measured on the test set", "", "what it is"), numbers) + "\n",
            f"Energy: {energy.RULE}\n",
            markdown.table(("", ""), facts) + "\n",
            f"Licence of the weights: {LICENCE.upper()}. The data set has its own terms.\n",
        ]
    )


def _front(result: Mapping[str, Any]) -> str:
    """What the Hugging Face hub reads of a card."""
    accuracy = FIELD["test.acc"].value(result)
    metrics = [("accuracy", "test accuracy (%)", accuracy), ("spike_rate", "spike rate", result["test"]["spike_rate"])]
    metrics += [("synops", "SynOps per image", result["synops_per_image"])]
    lines = [
        "---",
        f"license: {LICENCE}",
        "library_name: snn-bench",
        "pipeline_tag: image-classification",
        "tags: [spiking-neural-network, surrogate-gradient, regularization, spikingjelly]",
        "model-index:",
        f"- name: {json.dumps(result['run_id'])}",
        "  results:",
        "  - task: {type: image-classification}",
        f"    dataset: {{name: {json.dumps(result['data'])}, type: {json.dumps(result['data'])}, split: test}}",
        "    metrics:",
        *(f"    - {{type: {kind}, name: {json.dumps(name)}, value: {json.dumps(value)}}}"
          for kind, name, value in metrics if value is not None),
        "---\n",
    ]  # fmt: skip
    return "\n".join(lines)


def _shown(key: str, value: float) -> str:
    return f"{value:,}" if FIELD[key].kind is int else FIELD[key].with_unit(value)


def _arguments(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in given.items())


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
