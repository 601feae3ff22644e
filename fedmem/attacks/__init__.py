"""Attacks: whether an example was trained on (membership), and how a training example looked (reconstruction)."""
