"""Networks' values by dotted path, in memory and in files; files are read without running code."""
