"""Tests of `fedmem/signals`."""
