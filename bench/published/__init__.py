"""The papers' numbers, as files, and their reader."""
