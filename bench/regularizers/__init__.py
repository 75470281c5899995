"""Regularizers, one file each; a new file that registers its class is all that a new one needs."""
