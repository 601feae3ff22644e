"""The experiment on proxies."""
