"""What each command of `python -m bench` does."""
