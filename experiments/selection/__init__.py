"""The experiment on selection against memorisation."""
