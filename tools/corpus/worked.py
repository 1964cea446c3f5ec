"""Worked problems in mathematics, generated with every step written out and checked; the same text for the same seed.

Each problem family is a function (random generator) -> text. Wording varies; numbers, names and lengths are drawn.
"""

from __future__ import annotations

import random

import worked_algebra
import worked_logic
import worked_numbers
from documents import clean

SEED = 20261124
FAMILIES = (*worked_numbers.FAMILIES, *worked_algebra.FAMILIES, *worked_logic.FAMILIES)
_LABELS = (("Problem.", "Solution."), ("Question:", "Answer:"), ("Exercise.", "Working."), ("Example.", "Solution."), ("", ""))


def worked_documents(budget_bytes: int) -> list[tuple[str, str]]:
    """About `budget_bytes` of documents, each with 4 to 14 problems of one to three families."""
    documents: list[tuple[str, str]] = []
    size = 0
    while size < budget_bytes:
        number = len(documents)
        text = worked_document(number)
        documents.append((f"worked/{number:06d}", text))
        size += len(text.encode("utf-8"))
    return documents


def worked_document(number: int) -> str:
    """Document `number`: depends on nothing but SEED and the number."""
    rng = random.Random(SEED * 1_000_003 + number)
    families = rng.sample(FAMILIES, rng.choice((1, 1, 2, 3)))
    ask, answer = rng.choice(_LABELS)
    problems: list[str] = []
    for _ in range(rng.randint(4, 14)):
        problem, steps = rng.choice(families)(rng)
        problem = f"{ask} {problem}".strip()
        problems.append(f"{problem}\n{answer} {steps}" if answer else f"{problem}\n\n{steps}")
    return clean("\n\n".join(problems))
