"""The command line: thin wrappers around the library, no logic of their own."""
