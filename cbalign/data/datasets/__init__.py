"""TFDS builders, one file per data set, and the import of image folders with caption files."""
