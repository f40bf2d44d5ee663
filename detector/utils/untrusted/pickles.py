"""What unpickling would build, computed from the pickle's operations without building anything."""

from __future__ import annotations

import pickletools
from collections.abc import Iterable, Sequence
from typing import BinaryIO

GET = ("GET", "BINGET", "LONG_BINGET")
PUT = ("PUT", "BINPUT", "LONG_BINPUT")

# The pickle machine's stack, where each value is replaced by the number of values nested in it; None is a mark.
Stack = list[int | None]


def max_values_and_names(pickles: Iterable[BinaryIO], limit: int) -> tuple[int, set[str]]:
    """The number of values nested in the largest value of the pickles, at most `limit`; and the names they refer to.

    A value that stands in several places counts at each: of 60 tuples that each hold the one before twice, the last
    has 2^60 values. As the key of a dict it would be hashed while the file is read, which takes for ever and cannot be
    interrupted. What is put into a list after the list was put into another value is not counted; lists are not hashed.

    Names are those of functions and classes, as "module name".
    Raises ValueError, IndexError, KeyError or TypeError on a damaged pickle.
    """
    most = 0
    names: set[str] = set()
    for pickle in pickles:
        stack: Stack = []
        memo: dict[object, int | None] = {}
        for operation, argument, _ in pickletools.genops(pickle):
            if operation.name in PUT:
                memo[argument] = stack[-1]
            elif operation.name in GET:
                stack.append(memo[argument])
            elif operation.name == "MARK":
                stack.append(None)
            else:
                if operation.name == "GLOBAL":
                    names.add(str(argument))
                values = min(limit, 1 + sum(_pop_operands(stack, operation.stack_before)))
                for _ in operation.stack_after:  # at most one; STOP and POP put nothing back
                    most = max(most, values)
                    stack.append(values)
    return most, names


def _pop_operands(stack: Stack, kinds: Sequence[pickletools.StackObject]) -> list[int]:
    """Take an operation's operands off the stack: one for each kind, or all down to the last mark and those below it.

    Raises TypeError where an operand is a mark.
    """
    taken, below = [], len(kinds)
    if pickletools.markobject in kinds:
        below = list(kinds).index(pickletools.markobject)
        while (values := stack.pop()) is not None:
            taken.append(values)
    for _ in range(below):
        values = stack.pop()
        if values is None:
            raise TypeError("a mark in the place of a value")
        taken.append(values)
    return taken
