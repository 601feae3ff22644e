"""Exposure rises with repetition, and counterfactual memorisation falls: one figure of both."""
