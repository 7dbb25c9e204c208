"""Picture files become arrays of pixels and network inputs here, and arrays become bytes again."""
