"""What reading a pickle would take, told from its operations; nothing is made."""

from __future__ import annotations

import pickletools
from typing import BinaryIO

GET = ("GET", "BINGET", "LONG_BINGET")
PUT = ("PUT", "BINPUT", "LONG_BINPUT")


def most_values(pickle: BinaryIO, limit: int) -> int:
    """The values in a pickle's largest tuple or other value, counting those that stand in several places at each; no
    more than `limit` are counted.

    60 tuples that hold the one before twice are 10^18 values to hash(), which a dict calls for its keys while it is
    read, and which nothing interrupts. What is put into a list later than this stands in another is not counted: lists
    are not hashed. Raises ValueError, IndexError, KeyError or TypeError where the pickle is damaged.
    """
    stack: list[int | None] = []  # of each value, the values in it; None: a mark
    memo: dict[int, int] = {}
    most = 0
    for operation, argument, _ in pickletools.genops(pickle):
        if operation.name in PUT:
            memo[argument] = stack[-1]
        elif operation.name in GET:
            stack.append(memo[argument])
        elif operation.name == "MARK":
            stack.append(None)
        else:
            taken = _take(stack, operation.stack_before)
            values = min(limit, 1 + sum(taken))
            most = max(most, values)
            stack += [values] * len(operation.stack_after)
    return most


def _take(stack: list[int | None], kinds: list) -> list[int | None]:
    """Take off the stack what an operation takes: so many values, or all to the last mark and so many below it."""
    taken, below = [], len(kinds)
    if pickletools.markobject in kinds:
        below = kinds.index(pickletools.markobject)
        while (values := stack.pop()) is not None:
            taken.append(values)
    return taken + [stack.pop() for _ in range(below)]
