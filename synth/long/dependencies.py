"""Dependency order: what is needed comes first, cycles are broken the same way every time.

Contract: `ordered` puts every node after the nodes it needs, except inside a cycle (a strongly connected component,
Tarjan 1972). A cycle is ordered again by the needs that cannot wait (`now`), and what is still a cycle by path.
Between nodes that do not need each other the given order stays, so that neighbours stay neighbours. Cost: linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

Needs = Mapping[str, Sequence[str]]


def ordered(nodes: Sequence[str], now: Needs, later: Needs) -> tuple[list[str], list[list[str]]]:
    """(nodes in dependency order, the cycles among all needs in their order)."""
    every = {node: [*now.get(node, ()), *later.get(node, ())] for node in nodes}
    found: list[str] = []
    cycles: list[list[str]] = []
    for component in components(nodes, every):
        if len(component) > 1:
            own = set(component)
            inner = [node for node in nodes if node in own]
            component = [one for part in components(inner, now) for one in sorted(part)]
            cycles.append(component)
        found += component
    return found, cycles


def components(nodes: Sequence[str], needs: Needs) -> Iterator[list[str]]:
    """The strongly connected components among `nodes`, each after those that it needs."""
    known = set(nodes)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    for root in nodes:
        if root in index:
            continue
        path: list[tuple[str, Iterator[str]]] = []
        following: str | None = root
        while following is not None or path:
            if following is not None:
                index[following] = low[following] = len(index)
                stack.append(following)
                on_stack.add(following)
                path.append((following, iter([one for one in needs.get(following, ()) if one in known])))
            node, rest = path[-1]
            following = None
            for other in rest:
                if other not in index:
                    following = other
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            if following is not None:
                continue
            path.pop()
            if path:
                low[path[-1][0]] = min(low[path[-1][0]], low[node])
            if low[node] == index[node]:
                component = [stack.pop()]
                while component[-1] != node:
                    component.append(stack.pop())
                on_stack.difference_update(component)
                yield component
