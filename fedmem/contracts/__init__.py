"""Contracts: the records that parts exchange, and what a member of each family must do and may declare."""
