"""What all public methods keep: validation, isolation, round trips, cancellation, faults."""
