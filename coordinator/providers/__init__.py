"""What the coordinator asks of others' services: registries of images, and the clouds behind some of them."""
