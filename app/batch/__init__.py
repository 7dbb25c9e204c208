"""`python -m app label`: a folder of photos becomes a data set with masks."""
