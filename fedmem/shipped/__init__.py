"""Files that fedmem ships beside its code: scenarios by name, and their data files."""
