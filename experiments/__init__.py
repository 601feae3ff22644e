"""Experiments, each a package with a question: settings, analysis, figure and page."""
