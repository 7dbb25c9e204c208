"""Everything that may read true masks: measuring, pictures, and the fully supervised upper bound."""
