"""One file of bytes for each frame type, written once and never again.

A deployed agent speaks like these files for years. When a test here fails, the frame was edited: add a new one instead.
`python -m tests.golden` writes the files that do not exist yet.
"""
