"""The visible branch of a conversation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from asyncsvc.exports.model import ExportedConversation, Node, UnreadableError
from asyncsvc.exports.values import joined

_NO_TIME: Final = datetime.min.replace(tzinfo=UTC)


def chain(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return a list of messages as a tree with one branch. A missing id is derived.

    A derived id depends on the node and all nodes before it, so it does not change when the list
    grows.
    """
    linked = list[Node]()
    parent: str | None = None
    for node in nodes:
        id = node.id or _derived_id(parent, node)
        linked.append(replace(node, id=id, parent=parent))
        parent = id
    return tuple(linked)


def _derived_id(parent: str | None, node: Node) -> str:
    texts = joined(part.text for part in node.parts)
    identity = "\0".join([parent or "", node.role or "", texts])
    return hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:32]


def visible_branch(conversation: ExportedConversation) -> list[Node]:
    """Return the nodes from the root to the current node.

    Without a usable current node, the branch ends at the leaf with the newest time; of equally new
    leaves, at the last one in the file. A missing parent ends the branch. Raises UnreadableError
    for a cycle.
    """
    by_id = {node.id: node for node in conversation.nodes if node.id is not None}
    leaf = by_id.get(conversation.current or "") or _newest_leaf(by_id)
    branch, left = list[Node](), dict(by_id)
    node = leaf
    while node is not None:
        branch.append(node)
        del left[node.id or ""]
        if node.parent in by_id and node.parent not in left:
            raise UnreadableError("its nodes form a cycle")
        node = left.get(node.parent or "")
    return branch[::-1]


def _newest_leaf(by_id: Mapping[str, Node]) -> Node | None:
    """Return the leaf with the newest time: its own time, or that of its nearest ancestor."""
    parents = {node.parent for node in by_id.values()}
    leaves = [node for node in by_id.values() if node.id not in parents]
    if by_id and not leaves:
        raise UnreadableError("its nodes form a cycle")
    times = dict[str, datetime]()
    newest, newest_time = None, _NO_TIME
    for leaf in leaves:
        time = _time_of(leaf, by_id, times)
        if newest is None or time >= newest_time:
            newest, newest_time = leaf, time
    return newest


def _time_of(leaf: Node, by_id: Mapping[str, Node], times: dict[str, datetime]) -> datetime:
    """Return the time of the nearest node with one, from the leaf to the root.

    `times` holds the results for visited nodes, so that all leaves together cost linear time.
    """
    visited, node, time = list[str](), leaf, _NO_TIME
    while node.id is not None:
        if node.id in times:
            time = times[node.id]
            break
        visited.append(node.id)
        times[node.id] = _NO_TIME  # ends the walk in a cycle
        if node.created_at is not None:
            time = node.created_at
            break
        parent = by_id.get(node.parent or "")
        if parent is None:
            break
        node = parent
    times.update(dict.fromkeys(visited, time))
    return time
