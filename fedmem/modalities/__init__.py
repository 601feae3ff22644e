"""Kinds of data, one file each: which inputs are valid, how near a reconstruction comes, and what a report shows."""
