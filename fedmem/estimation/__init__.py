"""The only place where a number gets its interval: resampling, tests, views and estimates."""
