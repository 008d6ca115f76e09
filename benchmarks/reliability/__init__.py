"""What must hold when things break: `python -m benchmarks.reliability crash` and `... soak`."""
