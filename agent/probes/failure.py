"""Why a probe did not pass, in a sentence for people."""


class ProbeFailed(Exception):
    """`reached` tells a target that answered badly from one that could not be reached at all."""

    def __init__(self, message: str, *, reached: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.reached = reached
