"""Local learning: networks of excitatory and inhibitory neurons whose input weights change by spike timing alone."""
