"""The use cases, one module per API router, each operation declared once in `table.TABLE`."""

ROUTERS = (
    "system",
    "organization",
    "user",
    "project",
    "environment",
    "cluster",
    "cluster_nodes",
    "container",
    "container_actions",
    "container_reads",
    "container_logs",
)
"""The modules that declare procedures; importing them fills the table."""
