"""The agent edge: one websocket per node, and everything that crosses it."""
