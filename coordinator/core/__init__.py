"""What the coordinator decides, as pure functions over frozen views: no clock, no chance, no store, no network."""
