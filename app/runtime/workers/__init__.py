"""The worker processes are started here, do their work, and are replaced when they end."""
