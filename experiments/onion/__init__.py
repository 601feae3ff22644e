"""Does removing the most exposed examples expose those that stay?"""
