"""Helpers of the tests: servers, proxies, calls, terminals."""
