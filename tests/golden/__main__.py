"""Write the golden files that are missing. Never touches one that exists: that is the point of them."""

from shared.wire.codec import encode
from tests.golden.files import HERE, expected

for name, frame in expected().items():
    path = HERE / name
    if not path.exists():
        path.write_bytes(encode(frame))
        print(f"wrote {path}")
