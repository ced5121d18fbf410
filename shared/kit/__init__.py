"""Domain-free tools. Nothing here knows what a node or a container is."""
