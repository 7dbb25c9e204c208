"""Localization maps: one map in [0, 1] for each class."""
