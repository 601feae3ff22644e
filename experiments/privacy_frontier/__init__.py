"""What does privacy cost, and what does it take from memorisation?"""
