"""What can go wrong below a live test, told apart so that a broken machine is not read as a broken product."""


class LabError(Exception):
    """The ground under the test gave way; the test itself has said nothing yet."""


class UnpreparedError(LabError):
    """This machine lacks a package or a privilege that the live tests need."""


class CommandFailedError(LabError):
    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(f"{command!r} ended with {status}: {output.strip()[-2000:]}")
        self.status = status
        self.output = output


class NotReadyError(LabError):
    """A process or a state did not come in time."""


class PoweredOffError(LabError):
    """Asked something of a host that is switched off."""
