"""What `import bench` offers: networks, regularizers in one's own loop, what a pass cost, records as a table."""
