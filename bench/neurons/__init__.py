"""Spiking layers: IF, LIF and PLIF neurons of SpikingJelly with pinned defaults, and their ReLU twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.lazy import face
from bench.neurons.config import NEURONS, NeuronConfig

if TYPE_CHECKING:
    from bench.neurons.adopted import adopt
    from bench.neurons.layer import Spiking, charge, make_neuron

__all__ = ["NEURONS", "NeuronConfig", "Spiking", "adopt", "charge", "make_neuron"]

__getattr__ = face(__name__, {"Spiking": "layer", "adopt": "adopted", "charge": "layer", "make_neuron": "layer"})
