"""Takes weights that somebody else trained into the store, as a finished cell.

They are read from a file without running any code in it, and fitted onto a backbone. The command
line imports it.
"""
