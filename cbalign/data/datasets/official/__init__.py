"""Builders of data sets made from official files that users fetch themselves."""
