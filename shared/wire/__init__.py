"""The agent channel: frames, their encoding, and the handshake and lease as a protocol without I/O."""
