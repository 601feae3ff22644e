"""The experiment on adversarial and poisoned examples."""
