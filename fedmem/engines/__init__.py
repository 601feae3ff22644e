"""Engines: what carries the messages of a scenario between its server and its clients."""
