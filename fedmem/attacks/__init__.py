"""Attacks: who was trained on what (membership), and what a training example looked like (reconstruction)."""
