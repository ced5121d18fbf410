"""The loop that makes a node run what it is told: wake → observe → plan → execute → report."""
