"""Injections: one file per kind, each adds audit examples to the clients."""
