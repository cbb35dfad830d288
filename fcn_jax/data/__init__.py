"""From files to batches: sources -> entries, checks -> builder -> dataset -> decoded, batches, augment."""
