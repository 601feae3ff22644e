"""Estimators: pure functions of stored evidence; intervals, differences and retention follow from them."""
