"""What an operator says about mail. The server's address holds a password, so it comes from the environment alone: command lines
are everybody's to read."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parseaddr

from coordinator.errors import StartError
from coordinator.mail import relay
from coordinator.mail.postman import Postman
from coordinator.mail.relay import Relay, Server
from shared.kit.clock import Clock


@dataclass(frozen=True)
class MailSettings:
    """`server` None: no mail goes out, and links are given to whoever asks for them."""

    server: Server | None = None
    sender: str = ""


def add_flags(parser: ArgumentParser, env: Mapping[str, str]) -> None:
    parser.add_argument(
        "--mail-from",
        default=env.get("ARGOSY_MAIL_FROM", ""),
        help="whom mail comes from, as argosy@example.org; it goes out by the server that ARGOSY_SMTP_URL names, as "
        "smtp://user:password@mail.example:587 or smtps://…, and without one invitations are links for you to pass on",
    )


def read(given: Namespace, env: Mapping[str, str]) -> MailSettings:
    """Raises StartError naming the setting."""
    url, sender = env.get("ARGOSY_SMTP_URL", ""), given.mail_from
    if not url:
        return MailSettings()
    try:
        server = relay.parse(url)
    except ValueError as error:
        raise StartError(f"ARGOSY_SMTP_URL: {error}") from error
    if "@" not in parseaddr(sender)[1] or any(one in sender for one in "\r\n"):
        raise StartError("ARGOSY_MAIL_FROM: must be an address such as argosy@example.org, for ARGOSY_SMTP_URL is set")
    return MailSettings(server, sender)


def postman(settings: MailSettings, clock: Clock) -> Postman | None:
    return None if settings.server is None else Postman(Relay(settings.server, settings.sender), clock)
