"""The worker processes: where they come from, what one of them does, and who replaces it when it ends."""
