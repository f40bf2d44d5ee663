"""What broken files are made with: odd values, changes of structure, changes of bytes."""

from __future__ import annotations

import json

from hypothesis import strategies as st

# Texts that have broken something, here or elsewhere.
TEXTS = st.sampled_from(
    ["", " ", "..", "../a.png", "/etc/passwd", "C:\\a", "a\0b", "\n", "a\nb", "\x1b[31m", "\ud800", "\u202e", "<b>&\"'",
     "x" * 10_000, "é" * 300, "e\u0301" * 150, "🦊", "NaN", "1e999", "~", "a.png", "sub", "images", "cat", "*data",
     "!!python/object/apply:os.system [true]", "!!bool x", "!!timestamp x", "!!set {a}", "null", "{}", "[", "- ",
     "? [a]"]
)  # fmt: skip
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400, 1e308, -1e308, 5e-324, -0.0, 1e-30]),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    st.integers(-100, 100),
    st.floats(width=32),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.text(max_size=8))
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def places(tree: object, path: tuple = ()) -> list[tuple]:
    """The path of every value in a tree of dicts and lists, except the tree itself."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


@st.composite
def changed(draw, tree: object) -> object:
    """The tree with one to three values replaced, removed, doubled, or under another key."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw(st.integers(1, 3))):
        *parents, leaf = draw(st.sampled_from(places(tree) or [("x",)]))
        holder = tree
        for key in parents:
            holder = holder[key]
        what = draw(st.sampled_from(["replace", "replace", "remove", "double", "rename"]))
        if what == "remove":
            del holder[leaf]
        elif what == "double" and isinstance(holder, list):
            holder += holder[leaf : leaf + 1] * draw(st.sampled_from([1, 3, 500]))
        elif what == "rename" and isinstance(holder, dict):
            holder[draw(TEXTS | st.text(max_size=4))] = holder.pop(leaf)
        else:
            holder[leaf] = draw(VALUES)
        if not isinstance(tree, dict) or not places(tree):
            break
    return tree


@st.composite
def mangled(draw, content: bytes, pieces: tuple[bytes, ...]) -> bytes:
    """The bytes with one to four places overwritten, cut out or repeated, or with a piece inserted."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.sampled_from([1, 1, 2, 4, 16, 200]))
        what = draw(st.sampled_from(["flip", "flip", "cut", "repeat", "insert", "end"]))
        if what == "flip":
            content[at : at + length] = draw(st.binary(min_size=1, max_size=min(length, 8)))
        elif what == "cut":
            del content[at : at + length]
        elif what == "repeat":
            content[at:at] = content[at : at + length] * draw(st.sampled_from([1, 2, 300]))
        elif what == "insert":
            content[at:at] = draw(st.sampled_from(pieces)) * draw(st.sampled_from([1, 1, 1, 200]))
        else:
            del content[at:]
    return bytes(content)
