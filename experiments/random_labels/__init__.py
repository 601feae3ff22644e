"""The experiment on random labels and capacity."""
