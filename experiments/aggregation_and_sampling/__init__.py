"""Which aggregation, and which sampling, lets a federation memorise less?"""
