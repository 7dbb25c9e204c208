"""A run's configuration consists of tables, with every key's default and meaning, and is read from one file."""
