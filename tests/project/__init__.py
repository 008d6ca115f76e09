"""The package, the documents, the benchmarks, the example and the test tools."""
