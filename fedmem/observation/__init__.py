"""Everything that watches training: transitions, evidence and probes."""
