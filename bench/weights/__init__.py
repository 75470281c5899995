"""Trained networks as files: safetensors that say what network they are of, and the card beside them."""
