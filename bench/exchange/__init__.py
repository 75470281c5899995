"""Trained networks in formats that other programs read: one time step as a graph, and from it NIR and ONNX."""
