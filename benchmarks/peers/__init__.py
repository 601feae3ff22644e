"""Other simulators of federated learning, each run in a virtual environment of its own."""
