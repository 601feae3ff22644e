"""Defences: one file per kind, each changes an update before it leaves its client."""
