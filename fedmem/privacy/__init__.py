"""Guarantees: mechanisms, accounting, amplification, and audits of them."""
