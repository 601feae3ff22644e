"""The experiment on mitigations at equal accuracy."""
