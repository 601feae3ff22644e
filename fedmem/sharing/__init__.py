"""Results leave their folder: exports, live tracking, copies on other file systems, and an index of many runs."""
