"""Data sets, one a file; the registry knows them by name."""
