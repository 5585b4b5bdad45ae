"""Whose credential it is: keys that are held as digests, and tokens that others have signed."""
