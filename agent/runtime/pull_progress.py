"""Bytes done of bytes known, from the lines the engine prints while it pulls.

The engine speaks per layer and tells a layer's size only once it downloads it, so what is known grows while pulling; layers
that are there already never count. Neither number ever goes back: the engine repeats and reorders its lines, and a retried
download starts from 0.
"""

from msgspec import Struct, field


class ProgressDetail(Struct):
    current: int | None = None
    total: int | None = None


class ErrorDetail(Struct):
    message: str = ""


class PullLine(Struct):
    """One line of the engine's stream; fields nobody reads are left out."""

    status: str = ""
    id: str = ""
    progress_detail: ProgressDetail | None = field(name="progressDetail", default=None)
    error: str = ""
    error_detail: ErrorDetail | None = field(name="errorDetail", default=None)

    @property
    def failure(self) -> str:
        detail = self.error_detail.message if self.error_detail else ""
        return detail or self.error


class PullProgress:
    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self.done = 0
        self.known = 0

    def saw(self, line: PullLine) -> bool:
        """Whether the numbers changed."""
        before = (self.done, self.known)
        match line.status:
            case "Downloading":
                detail = line.progress_detail or ProgressDetail()
                self._advance(line.id, detail.current or 0, max(detail.total or 0, detail.current or 0))
            case "Verifying Checksum" | "Download complete" | "Extracting" | "Pull complete":
                total = self._layers.get(line.id, (0, 0))[1]
                self._advance(line.id, total, total)
            case _:
                pass
        return (self.done, self.known) != before

    def _advance(self, layer: str, done: int, known: int) -> None:
        old_done, old_known = self._layers.get(layer, (0, 0))
        done, known = max(done, old_done), max(known, old_known)
        self._layers[layer] = (done, known)
        self.done += done - old_done
        self.known += known - old_known
