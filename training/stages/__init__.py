"""The verbs of a run: each stage takes what the stages before it left in the run's folder."""
