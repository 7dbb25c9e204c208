"""A run's configuration: its tables, with every key's default and meaning, and the file that holds them."""
