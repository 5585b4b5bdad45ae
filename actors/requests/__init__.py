"""Requests, and the runs that answer them: submission, coalescing, state, storage."""
