"""The services and the facade: what each public method does."""
