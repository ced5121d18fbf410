"""One spelling for each e-mail address: what is compared, stored and unique."""

import re
import unicodedata

LONGEST = 254
_SHAPE = re.compile(r"[^\s@<>\"(),:;\\\[\]\x00-\x1f\x7f]{1,64}@[^\s@<>\"(),:;\\\x00-\x1f\x7f]{1,189}")


def normalise(text: str) -> str | None:
    """None when it is no address. Lower case throughout: no provider that matters tells `Ann@` from `ann@`, and two accounts that
    differ in nothing else are a trap."""
    address = unicodedata.normalize("NFKC", text).strip().lower()
    return address if len(address) <= LONGEST and _SHAPE.fullmatch(address) else None
