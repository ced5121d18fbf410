"""Logs on their way from nodes to readers. Nothing is stored, and without a reader nothing is sent."""
