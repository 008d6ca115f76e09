"""The tests, a directory for each part of the project."""
