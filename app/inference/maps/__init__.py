"""Localization maps are made here: one map in [0, 1] for each class."""
