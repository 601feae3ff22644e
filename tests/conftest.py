"""Property tests draw the same examples every time, as everything else here does."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
