"""Types, limits and checks of the arguments of callers, before any SQL runs."""
