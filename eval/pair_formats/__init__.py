"""Lists of pairs, one format per file: text -> which images make which pairs, in which fold. No image is opened."""
