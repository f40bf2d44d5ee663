"""The colours of pages and plots, in one table. Pages have them as CSS variables, plots as numbers."""

from __future__ import annotations

PALETTE = {  # name → in a light page and in pictures, in a dark page
    "page": ("#f6f7f9", "#0f141a"),
    "card": ("#ffffff", "#181f27"),
    "ink": ("#1b2430", "#e4e9ef"),
    "soft": ("#5b6775", "#9aa7b5"),
    "line": ("#d9dee5", "#313b46"),
    "grey": ("#9aa5b1", "#6b7785"),
    "accent": ("#1f6feb", "#6ea8ff"),
    # What is good or bad: on a wash of the same colour.
    "good": ("#17803d", "#5fcf85"),
    "warn": ("#a15c00", "#f0b45a"),
    "bad": ("#c62839", "#ff7b86"),
    "good-wash": ("#e3f4e8", "#17301f"),
    "warn-wash": ("#fdf1dc", "#362a14"),
    "bad-wash": ("#fde7e9", "#3b1c20"),
    # Groups of classes. Wherever a group is shown, it has its colour; nothing else has it.
    "head": ("#2f6fde", "#6ea8fe"),
    "medium": ("#0a8f84", "#45cfc0"),
    "tail": ("#b5279b", "#f08ae0"),
    # Anything else that is drawn, in this order.
    "c1": ("#52657c", "#a3b4c8"),
    "c2": ("#d9600a", "#ff9a4d"),
    "c3": ("#8a7400", "#d8c24a"),
    "c4": ("#6a4fc4", "#ab97f5"),
}
GROUP_COLOURS = {group: PALETTE[group][0] for group in ("head", "medium", "tail")}
INK, LINE, GREY = (PALETTE[name][0] for name in ("ink", "line", "grey"))
COLOURS = tuple(PALETTE[name][0] for name in ("c1", "c2", "c3", "c4"))
CYCLE = f"cycler(color={list(COLOURS)})"  # matplotlib's axes.prop_cycle
