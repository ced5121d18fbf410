"""Joining: tokens that let in, tokens that do not, and what a machine is told when it may not join."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from shared.wire import join
from tests.hosts import images
from tests.hosts.stack import Agent, Stack
from tests.live import waiting, witness
from tests.live.declared import web

pytestmark = pytest.mark.live

REFUSED = 3
"""The exit status with which an agent says that trying again cannot help."""


@pytest.fixture
def newcomer(stack: Stack) -> Iterator[Callable[[str], Agent]]:
    """Makes agents that have no identity yet, on the engine of the first host."""

    def make(name: str) -> Agent:
        agent = Agent(stack.hosts[0], stack.coordinator.url, stack.directory, name)
        stack.others.append(agent)
        return agent

    known = {node.id for node in stack.api.nodes()}
    yield make
    while stack.others:
        stack.others.pop().close()
    for node in stack.api.nodes():
        if node.id not in known:
            stack.api.remove_node(node.id, force=True)
    for left in stack.directory.glob("agent-new*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


Newcomer = Callable[[str], Agent]


def refused(agent: Agent, token: str) -> str:
    """What an agent that is refused says last."""
    agent.start(ARGOSY_JOIN=token)
    assert agent.ended(20) == REFUSED, agent.tail()
    last = agent.records()[-1]
    assert last["level"] == "error", last
    return str(last["reason"])


def joined(stack: Stack, name: str) -> str:
    """The id of the node with this label, once it runs."""
    node = waiting.until(
        lambda: [node for node in stack.api.nodes() if node.labels.get("host") == name],
        lambda found: found and found[0].status == "running",
        within=15,
        saying=f"{name} has joined",
    )[0]
    return node.id


def test_a_used_token_is_refused(stack: Stack, newcomer: Newcomer) -> None:
    token = stack.api.join_token()
    newcomer("new1").start(ARGOSY_JOIN=token)
    joined(stack, "new1")
    assert "used" in refused(newcomer("new2"), token)
    assert [node for node in stack.api.nodes() if node.labels.get("host") == "new2"] == []


def test_a_token_for_two_lets_two_in(stack: Stack, newcomer: Newcomer) -> None:
    token = stack.api.join_token(uses=2)
    for name in ("new1", "new2"):
        newcomer(name).start(ARGOSY_JOIN=token)
    joined(stack, "new1")
    joined(stack, "new2")
    assert "used" in refused(newcomer("new3"), token)


def test_an_expired_token_is_refused(stack: Stack, newcomer: Newcomer) -> None:
    token = stack.api.join_token(ttl=60)
    with closing(sqlite3.connect(stack.coordinator.data / "argosy.db", timeout=10)) as database, database:
        (changed,) = database.execute(
            "UPDATE join_token SET expires_at = expires_at - 120 WHERE id = ? RETURNING id",
            [join.parse(token).token_id],
        ).fetchall()
    assert changed
    assert "expired" in refused(newcomer("new1"), token)


def test_a_token_with_another_secret_is_refused(stack: Stack, newcomer: Newcomer) -> None:
    token = join.parse(stack.api.join_token())
    guessed = join.JoinToken(token.token_id, b"0" * 16, token.fingerprint)
    invented = join.JoinToken("tok_invented", token.secret, token.fingerprint)
    first, second = refused(newcomer("new1"), str(guessed)), refused(newcomer("new2"), str(invented))
    assert "token" in first
    assert "token" in second


def test_a_token_of_another_coordinator_gives_nothing_away(stack: Stack, newcomer: Newcomer) -> None:
    """The pinned key is not this coordinator's: the agent does not even send its secret, and says whom it met."""
    token = join.parse(stack.api.join_token())
    foreign = join.JoinToken(token.token_id, token.secret, b"\1" * 32)
    agent = newcomer("new1")
    agent.start(ARGOSY_JOIN=str(foreign))
    waiting.until(agent.said, lambda said: "UNTRUSTED_HUB" in said or "pinned" in said, within=15, saying="it says so")
    assert [node for node in stack.api.nodes() if node.labels.get("host") == "new1"] == []
    agent.terminate()


@pytest.mark.parametrize("text", ["argosy1.tok_x.abc", "nonsense", "argosy1.tok_x.%%%.abc"])
def test_a_damaged_token_is_one_clear_line(stack: Stack, newcomer: Newcomer, text: str) -> None:
    agent = newcomer("new1")
    agent.start(ARGOSY_JOIN=text)
    assert agent.ended() == 2
    (line,) = agent.said().strip().splitlines()
    assert "join" in line
    assert text not in line, "a secret does not belong into a log"


def test_a_machine_without_identity_and_token_says_what_it_needs(stack: Stack, newcomer: Newcomer) -> None:
    agent = newcomer("new1")
    agent.start()
    assert agent.ended() == 2
    (line,) = agent.said().strip().splitlines()
    assert "--join" in line


def test_an_agent_killed_while_it_enrols_is_one_node(stack: Stack, newcomer: Newcomer) -> None:
    token = stack.api.join_token()
    agent = newcomer("new1")
    agent.start(ARGOSY_JOIN=token)
    waiting.until((agent.state / "identity.json").exists, bool, within=10, saying="it has keys", every=0.001)
    agent.kill()
    agent.start(ARGOSY_JOIN=token)
    joined(stack, "new1")
    assert len([node for node in stack.api.nodes() if node.labels.get("host") == "new1"]) == 1


def test_the_same_identity_twice(stack: Stack, newcomer: Newcomer) -> None:
    """A copied state directory: one of the two has the session, the other waits and says why; nothing runs twice."""
    original = stack.agents[0]
    container = stack.api.create("web", images.WEB_1, 3, **web())
    waiting.running(stack, container.id, 3)
    before = witness.sole(stack, container.id, 3)
    copy = newcomer("new1")
    shutil.copytree(original.state, copy.state)
    since = original.mark()
    copy.start()
    waiting.until(
        lambda: original.said(since) + copy.said(),
        lambda said: "running twice" in said,
        within=20,
        saying="the one that was thrown out suspects it",
    )
    waiting.always(
        lambda: stack.node(stack.hosts[0]).status,
        lambda word: word != "lost",
        lasting=8,
        saying="one of them has the lease",
    )
    assert witness.sole(stack, container.id, 3) == before
    assert (original.said(since) + copy.said()).count("running twice") <= 3, "they throw each other out in turns"
    copy.close()
    original.kill()
    original.start()
    stack.await_nodes()
    waiting.running(stack, container.id, 3)
    assert witness.sole(stack, container.id, 3) == before


def test_two_agents_on_one_state_directory(stack: Stack, newcomer: Newcomer) -> None:
    agent = newcomer("new1")
    agent.command[agent.command.index("--state-dir") + 1] = str(stack.agents[0].state)
    agent.start()
    assert agent.ended() == 2
    assert "another agent" in agent.said()
    assert stack.agents[0].is_on


def test_a_removed_node_is_turned_away_for_good(stack: Stack, newcomer: Newcomer) -> None:
    agent = newcomer("new1")
    agent.start(ARGOSY_JOIN=stack.api.join_token())
    node_id = joined(stack, "new1")
    stack.api.remove_node(node_id, force=True)
    assert agent.ended(15) == REFUSED
    agent.start()
    assert agent.ended(15) == REFUSED, "it comes back with its identity, and is refused again"
