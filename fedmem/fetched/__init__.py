"""Published files that are fetched once: where they come from, where they lie, and their checksums."""
