"""Probes of a trained network, one file each; a new file that registers its class is all that a new one needs."""
