"""Unlearners: what happens to a model once before a phase, so that it forgets rows; one file a kind."""
