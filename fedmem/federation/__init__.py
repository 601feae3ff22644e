"""From a scenario to who holds which rows, audit examples, inclusion coins, weights and cohorts."""
