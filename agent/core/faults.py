"""What can go wrong with an engine, in words every part of the agent understands.

Here and not beside the runtimes, because probes and logs meet these faults too and must not know any runtime.
"""

from shared.spec.reason import ENGINE_ERROR, ENGINE_UNREACHABLE


class RuntimeFault(Exception):
    """What an engine refused or failed to do. `code` is one of `shared.spec.reason`; `temporary` faults are worth another try
    of the same thing, the others end in `rejected` (before it ran) or `failed`."""

    def __init__(self, code: str, message: str, *, temporary: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.temporary = temporary


class Unanswered(RuntimeFault):
    """The engine left one call without an answer. It may be this one engine container's trouble, and may have been done all the
    same: what became of it, and whether the engine answers at all, the next list tells."""

    def __init__(self, seconds: float) -> None:
        super().__init__(ENGINE_ERROR, f"no answer of the engine in {seconds:g} s", temporary=True)


class EngineUnreachable(RuntimeFault):
    """The engine does not answer. Says nothing about what it runs."""

    def __init__(self, message: str) -> None:
        super().__init__(ENGINE_UNREACHABLE, message, temporary=True)
