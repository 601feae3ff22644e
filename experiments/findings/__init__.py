"""The key points of the survey with their verdicts, from the tables of all studies."""
