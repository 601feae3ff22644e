"""The experiment on the value of examples and clients."""
