"""Many settings and seeds: comparisons, sweeps and searches."""
