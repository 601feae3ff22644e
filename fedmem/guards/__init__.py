"""Guards around calls into parts of a scenario: errors that name the part, and time limits."""
