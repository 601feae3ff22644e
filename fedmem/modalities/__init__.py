"""Images, tables and texts: losses, what is right, how near a reconstruction comes."""
