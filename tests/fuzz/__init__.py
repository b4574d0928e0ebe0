"""Fuzzing of every parser of bytes that come from outside; see docs/fuzzing.md."""
