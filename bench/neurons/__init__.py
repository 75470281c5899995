"""Spiking layers: IF, LIF and PLIF neurons of SpikingJelly with pinned defaults, and their ReLU twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.lazy import face
from bench.neurons.config import NEURONS, NeuronConfig
from bench.neurons.reads import SPIKES, Read

if TYPE_CHECKING:
    from bench.neurons.adopted import adopt
    from bench.neurons.layer import Spiking, make_neuron, potential_of

__all__ = ["NEURONS", "SPIKES", "NeuronConfig", "Read", "Spiking", "adopt", "make_neuron", "potential_of"]

__getattr__ = face(__name__, {"Spiking": "layer", "adopt": "adopted", "make_neuron": "layer", "potential_of": "layer"})
