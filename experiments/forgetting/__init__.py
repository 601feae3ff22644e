"""How an example fades from the aggregate while its owning client stays away, and when it was learnt."""
