"""What stands around calls into parts of a scenario: errors by name, limits of time."""
