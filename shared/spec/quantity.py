"""Quantities as users write them: `500m` or `0.5` of a processor, `512Mi` of memory. Sums are kept in integers."""

import re
from decimal import Decimal

_CPU = re.compile(r"(\d{1,6})m|(\d{1,4}(?:\.\d{1,3})?)")
_BYTES = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_FACTORS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def cpu_millis(text: str) -> int:
    """Thousandths of a processor: `"500m"` and `"0.5"` are 500. Raises ValueError."""
    match = _CPU.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a processor share such as '500m' or '0.5'")
    millis = int(match[1]) if match[1] is not None else int(Decimal(match[2]) * 1000)
    if millis < 1:
        raise ValueError(f"{text!r} is less than the smallest processor share, '1m'")
    return millis


def byte_count(text: str) -> int:
    """Bytes: `"512Mi"` is 536870912, `"1G"` is 10**9, a bare number is bytes. Raises ValueError."""
    match = _BYTES.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory such as '512Mi' or '1G'")
    return int(Decimal(match[1]) * _FACTORS.get(match[2], 1))


def readable_bytes(count: int) -> str:
    """The largest binary unit that keeps one decimal place or none: 536870912 is `"512 MiB"`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def readable_cpu(millis: int) -> str:
    return f"{millis / 1000:g} CPU"
