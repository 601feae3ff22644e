"""Tokens, windows, the space of secrets, search and generation."""
