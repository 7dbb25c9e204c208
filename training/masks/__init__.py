"""Everything that may read true masks is here: measuring, pictures, and the fully supervised upper bound."""
