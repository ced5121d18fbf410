"""The loops that drive: load a snapshot, ask the core, commit if it is still current. One loop, one kind of decision."""
