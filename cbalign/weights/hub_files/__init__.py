"""Files that travel with exported weights and are read by other programs."""
