"""Rules of all public methods: validation, isolation, round trips, cancellation, faults."""
