"""Twelve strategies and four samplers, tuned with the same budget and compared at equal accuracy."""
