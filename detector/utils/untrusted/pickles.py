"""What reading a pickle would take, told from its operations; nothing is made."""

from __future__ import annotations

import pickletools
from collections.abc import Iterable
from typing import BinaryIO

GET = ("GET", "BINGET", "LONG_BINGET")
PUT = ("PUT", "BINPUT", "LONG_BINPUT")


def max_values_and_names(pickles: Iterable[BinaryIO], limit: int) -> tuple[int, set[str]]:
    """The values in the largest tuple or other value of the pickles, counting those that stand in several places at
    each, but no more than `limit`; and what they name, as "module name".

    60 tuples that hold the one before twice are 10^18 values to hash(), which a dict calls for its keys while it is
    read, and which nothing interrupts. What is put into a list later than this stands in another is not counted: lists
    are not hashed. Raises ValueError, IndexError, KeyError or TypeError where a pickle is damaged.
    """
    most, names = 0, set()
    for pickle in pickles:
        stack: list[int | None] = []  # of each value, the values in it; None: a mark
        memo: dict[int, int | None] = {}
        for operation, argument, _ in pickletools.genops(pickle):
            if operation.name in PUT:
                memo[argument] = stack[-1]
            elif operation.name in GET:
                stack.append(memo[argument])
            elif operation.name == "MARK":
                stack.append(None)
            else:
                if operation.name == "GLOBAL":
                    names.add(argument)
                values = min(limit, 1 + sum(_take(stack, operation.stack_before)))
                most = max(most, values)
                stack += [values] * len(operation.stack_after)
    return most, names


def _take(stack: list[int | None], kinds: list) -> list[int | None]:
    """Take off the stack what an operation takes: so many values, or all to the last mark and so many below it."""
    taken, below = [], len(kinds)
    if pickletools.markobject in kinds:
        below = kinds.index(pickletools.markobject)
        while (values := stack.pop()) is not None:
            taken.append(values)
    return taken + [stack.pop() for _ in range(below)]
