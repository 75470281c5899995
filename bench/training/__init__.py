"""From settings to a trained network and its record."""
