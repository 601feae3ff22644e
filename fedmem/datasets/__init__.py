"""Data sets: one file per kind, each loads training and test rows."""
