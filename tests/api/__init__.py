"""The behaviour of each public method of the services and the facade."""
