"""Types, limits and checks of what callers pass, before any SQL runs."""
