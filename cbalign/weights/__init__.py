"""Weights in and out: DeiT and ViT, BERT, ALBEF and TCL checkpoints, and this project's own folders."""

SOURCES = ("deit", "vit", "bert", "albef", "tcl")
