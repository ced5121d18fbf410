"""A join token becomes a node."""

from coordinator.hub.clean import clean_facts
from coordinator.store import nodes, tokens
from coordinator.store.audit import Notary
from coordinator.store.nodes import NodeRecord
from coordinator.store.tokens import TokenError
from coordinator.store.writer import Tx
from shared.kit.ids import new_id
from shared.wire.session import EnrollAsked


async def enrol(tx: Tx, notary: Notary, asked: EnrollAsked, address: str) -> str:
    """The new node's id. Raises TokenError, and then nothing was used up.

    A key that is enrolled already gets its own id again, without a second use: the agent died, or the connection did, between our
    commit and its disk. The key itself is the proof, the session has checked its signature.
    """
    known = await nodes.of_signing_key(tx.conn, asked.frame.signing_key)
    if known is not None and known.revoked_at is None:
        return known.id
    if known is not None:
        raise TokenError("this node was removed: delete the agent's state directory to enrol it as a new one")
    token = await tokens.use(tx, asked.token_id, asked.secret)
    facts = clean_facts(asked.frame.facts)
    node_id = new_id("node")
    await nodes.insert(
        tx,
        NodeRecord(
            id=node_id,
            organization_id=token.organization_id,
            cluster_id=token.cluster_id,
            name=facts.hostname or node_id,
            role=token.role,
            signing_key=asked.frame.signing_key,
            sealing_key=asked.frame.sealing_key,
            facts=facts,
            enrolled_at=tx.now,
        ),
    )
    await notary.append(
        tx,
        "node.enrolled",
        node_id,
        organization_id=token.organization_id,
        actor=node_id,
        detail={"token": token.id, "cluster": token.cluster_id, "role": token.role, "hostname": facts.hostname},
        address=address,
    )
    return node_id
