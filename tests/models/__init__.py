"""Tests against models that share no code with the library."""
