"""Bijou: an image compression service on a learned, exactly invertible flow. Runs without torch."""

__version__ = "0.1.0"
