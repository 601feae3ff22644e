"""One aggregation strategy per file."""
