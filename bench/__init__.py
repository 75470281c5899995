"""Regularizers for spiking neural networks, compared honestly."""

__version__ = "0.1.0"
