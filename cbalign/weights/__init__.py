"""Weights in and out: DeiT and ViT, BERT, ALBEF and TCL, and this project's own."""

SOURCES = ("deit", "vit", "bert", "albef", "tcl")
