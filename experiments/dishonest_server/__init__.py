"""The experiment on dishonest servers."""
