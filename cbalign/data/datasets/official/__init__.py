"""Builders of data sets made from official files that the user downloads."""
