"""Client algorithms: what a client does locally between receiving a model and sending one."""
