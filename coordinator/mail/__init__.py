"""Mail that leaves the coordinator: written here, kept in memory until a server has taken it, told about when it has not."""
