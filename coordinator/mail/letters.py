"""A letter: what one person is told, as plain text and as simple HTML."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from html import escape


@dataclass(frozen=True)
class Letter:
    """`link`: where the reader goes on, shown as a link of its own. `paragraphs` hold plain text."""

    to: str
    subject: str
    paragraphs: tuple[str, ...]
    link: str = ""


def write(letter: Letter, sender: str, now: float) -> EmailMessage:
    """What goes to the server. Whatever users wrote is text: it starts no header and no HTML."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = letter.to
    message["Subject"] = one_line(letter.subject)
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message["Message-ID"] = make_msgid(domain=domain_of(sender))
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_text(letter))
    message.add_alternative(_html(letter), subtype="html")
    return message


def domain_of(sender: str) -> str:
    return sender.rpartition("@")[2].rstrip("> ") or "localhost"


def one_line(text: str) -> str:
    return " ".join(text.split())


def _text(letter: Letter) -> str:
    parts = [one_line(part) for part in letter.paragraphs]
    return "\n\n".join([*parts, letter.link] if letter.link else parts) + "\n"


def _html(letter: Letter) -> str:
    parts = [f"<p>{escape(one_line(part))}</p>" for part in letter.paragraphs]
    if letter.link:
        address = escape(letter.link, quote=True)
        parts.append(f'<p><a href="{address}">{address}</a></p>')
    return f'<!doctype html><html lang="en"><body>{"".join(parts)}</body></html>\n'
