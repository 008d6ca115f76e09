"""Reliability runs: `python -m benchmarks.reliability crash` and `... soak`."""
