"""All stages of a run in order, what a run needs before it starts, a trial of a recipe, and the comparison of methods."""
