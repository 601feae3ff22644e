"""The experiment on over-fitting and memorisation."""
