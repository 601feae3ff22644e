"""Run folders: written whole, read without training."""
