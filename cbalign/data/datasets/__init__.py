"""TFDS builders, one file a data set, and readers of folders and annotation files."""
