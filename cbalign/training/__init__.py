"""Everything that changes from step to step."""
