"""Serves experts: bytes -> batch -> expert -> bytes, and beside it artifact -> load -> serve."""
