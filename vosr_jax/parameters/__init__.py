"""Network parameters by dotted path, in memory and in files. Reading runs no code from a file."""
