"""Maintenance and the doctor."""
