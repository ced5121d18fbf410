"""What ends the agent before its time. Each carries the exit status a supervisor may act on; each message is the one line an
operator reads, so it names the option, file or coordinator at fault and what to do."""

from typing import ClassVar


class AgentError(Exception):
    exit_status: ClassVar[int] = 1


class SettingsError(AgentError):
    """An option or variable cannot be used as given."""

    exit_status = 2


class StateError(AgentError):
    """The state directory cannot be used: foreign, damaged, or in use."""

    exit_status = 2


class RefusedError(AgentError):
    """The coordinator refused this node for good. Trying again cannot help, so a supervisor must not restart the agent."""

    exit_status = 3
