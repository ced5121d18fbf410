"""Engines behind one protocol. "Engine container" is a word of this package only."""
