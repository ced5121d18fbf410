"""What the agent keeps on disk so that it needs nobody to go on: its last assignment set and what it remembers of each instance."""
