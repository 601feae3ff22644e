"""Samplers: one file per kind, each picks the cohort of a round."""
