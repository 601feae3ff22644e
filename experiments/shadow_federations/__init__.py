"""The experiment on shadow federations."""
