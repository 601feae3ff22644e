"""The experiment on approximations of influence."""
