"""Judges of a frozen encoder, one protocol a file; a file imports parts and the contract alone."""
