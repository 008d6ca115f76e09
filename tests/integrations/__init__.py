"""Tests of the integrations with frameworks and tools."""
