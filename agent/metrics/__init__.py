"""What the machine and its instances use, read from the kernel and not asked of the engine, which would pay for every answer."""
