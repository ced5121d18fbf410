"""Drains: lines of an organisation on their way to where people keep them. One reader for each organisation that has a drain, a
buffer on the disk for each drain, and one courier per drain that empties it as fast as the other side takes it."""
