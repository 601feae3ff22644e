"""Where a network has its memories: blocks and units, at owning clients and at the aggregate."""
