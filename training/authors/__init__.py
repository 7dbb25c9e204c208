"""The authors' own work: their weight files as models that serve, and agreement with their code."""
