"""Reconstruction of examples, from one client's update up to the sum of a whole cohort."""
