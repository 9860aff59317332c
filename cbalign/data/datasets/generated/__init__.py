"""Builders of data sets drawn here: scenes of coloured shapes, with captions, questions, statements and hypotheses."""
