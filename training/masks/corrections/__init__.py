"""Corrected masks are read from other tools, kept in a folder of corrections, and given to training where a recipe names it."""
