"""Local work of clients: one by one, stacked, or in worker processes."""
