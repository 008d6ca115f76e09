"""The implementations that the benchmarks compare with asyncsvc, one per module."""
