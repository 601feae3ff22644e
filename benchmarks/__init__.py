"""How fast this is, next to what one would use instead: `make bench`; and the executors: `make auto-table`."""
