"""Partitions: one file per kind, each says which client holds which rows."""
