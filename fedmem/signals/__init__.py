"""Signals: cheap quantities of models on audit examples that may stand for memorisation, one file a kind."""
