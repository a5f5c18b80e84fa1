"""Inference on images of any kind and size, export, and pictures that show what a network or a noise does."""
