"""Probes: look at the transitions of a round while it is there, and leave readings."""
