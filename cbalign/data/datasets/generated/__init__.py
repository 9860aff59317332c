"""Generated data sets: scenes of coloured shapes with captions, questions, statements and hypotheses."""
