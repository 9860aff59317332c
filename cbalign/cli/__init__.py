"""Sub-commands of `cbalign`: flags in, one call, a printed result."""
