"""What an image's name says about where it comes from, by the rule every engine follows."""

DOCKER_HUB = "docker.io"
_HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


def registry_of(image: str) -> str:
    """The registry an image name means: the first part is one only when it looks like a host name."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first
    return DOCKER_HUB


def canonical(server: str) -> str:
    """One name for each registry: Docker Hub has several, and letters of a host's name have no case."""
    lowered = server.lower()
    return DOCKER_HUB if lowered in _HUB_ALIASES else lowered
