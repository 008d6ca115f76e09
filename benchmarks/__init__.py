"""The figures that the project claims, measured by one command: `python -m benchmarks`."""
