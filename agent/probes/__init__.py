"""Health checks, run from outside the container: nothing needs to be installed in the image."""
