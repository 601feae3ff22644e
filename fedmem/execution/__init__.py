"""A scenario becomes a finished run folder."""
