"""Weights in files: state dicts of any origin, saved models of a run, and how they are put into a network."""
