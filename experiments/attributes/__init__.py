"""The experiment on attribute inference."""
