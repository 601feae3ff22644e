"""The experiment on samples of generative models."""
