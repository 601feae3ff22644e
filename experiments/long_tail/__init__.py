"""The long tail in a federation: who is memorised, who is useful, and what removing the most memorised costs."""
