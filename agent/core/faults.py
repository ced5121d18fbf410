"""What can go wrong with an engine, in words every part of the agent understands.

Here and not beside the runtimes, because probes and logs meet these faults too and must not know any runtime.
"""


class RuntimeFault(Exception):
    """What an engine refused or failed to do. `code` is one of `shared.spec.reason`; `temporary` faults are worth another try
    of the same thing, the others end in `rejected` (before it ran) or `failed`."""

    def __init__(self, code: str, message: str, *, temporary: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.temporary = temporary


class EngineUnreachable(RuntimeFault):
    """The engine does not answer. Says nothing about what it runs."""

    def __init__(self, message: str) -> None:
        super().__init__("engine_unreachable", message, temporary=True)
