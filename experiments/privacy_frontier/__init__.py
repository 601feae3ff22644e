"""The cost of privacy in utility, and its effect on memorisation."""
