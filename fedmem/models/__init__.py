"""Models: one file per kind, each builds a network."""
