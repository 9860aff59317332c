"""The HTML report of a run: tables of results, curves, examples of retrieval."""
