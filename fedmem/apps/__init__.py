"""Models and apps that somebody else trained: watching them, attacking what they leave."""
