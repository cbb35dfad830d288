"""What a careful user wants to know of a data set before a training: counts, sizes, void, and repeated images."""
