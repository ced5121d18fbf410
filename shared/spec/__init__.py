"""The nouns both halves share: what a user declares, what a node is told to run, and what it reports back.

Specs are written by users only; statuses are derived by the system only. Structs are frozen: a changed spec is a new value.
"""
