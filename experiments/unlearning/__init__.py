"""Which methods remove what a federation has memorised, verified by random inclusion."""
