"""Problem families on deduction: syllogisms, implications, truth tables, orderings, knights and knaves, induction."""

from __future__ import annotations

import itertools
from random import Random

Problem = tuple[str, str]
_KINDS = "cats poets squares rivers engines sailors lemons prisms mirrors painters wolves bridges crystals gardeners owls clocks".split()
_NAMES = "Ada Ben Clara Dmitri Emma Farid Grace Hugo Ines Jamal Kiri Leo Maya Noor Otto Priya".split()


def chain(rng: Random) -> Problem:
    n = rng.randint(3, 6)
    letters = rng.sample("ABCDEFGHKLMNPQRST", n)
    rules = [f"if {a} then {b}" for a, b in zip(letters, letters[1:])]
    order = rng.sample(rules, len(rules))
    if rng.random() < 0.5:
        steps = [f"{a} holds and {a} implies {b}, so {b} holds." for a, b in zip(letters, letters[1:])]
        return f"Given: {'; '.join(order)}; and {letters[0]} is true. Does {letters[-1]} follow?", " ".join(steps) + f" Yes, {letters[-1]} follows, by modus ponens {n - 1} times."
    steps = [f"{b} is false and {a} implies {b}, so {a} is false." for a, b in reversed(list(zip(letters, letters[1:])))]
    return f"Given: {'; '.join(order)}; and {letters[-1]} is false. What can be said of {letters[0]}?", " ".join(steps) + f" So {letters[0]} is false, by modus tollens {n - 1} times."


def syllogism(rng: Random) -> Problem:
    a, b, c = rng.sample(_KINDS, 3)
    cases = (
        (f"All {a} are {b}. All {b} are {c}.", f"all {a} are {c}", True, f"Take any of the {a}. It is one of the {b} by the first premise, hence one of the {c} by the second."),
        (f"All {a} are {b}. No {b} are {c}.", f"no {a} are {c}", True, f"Suppose some of the {a} were {c}. It would be one of the {b} too, but no {b} are {c}: a contradiction."),
        (f"Some {a} are {b}. All {b} are {c}.", f"some {a} are {c}", True, f"Take one of the {a} that is one of the {b}. By the second premise it is one of the {c}."),
        (f"All {a} are {b}. Some {b} are {c}.", f"some {a} are {c}", False, f"The {b} that are {c} need not be {a}: let there be one of the {a}, which is no {c}, and another {b} which is. Both premises hold and the conclusion fails."),
        (f"All {a} are {b}. All {c} are {b}.", f"all {a} are {c}", False, f"Both lie within the {b} but they may be apart: one of the {a} that is none of the {c} breaks the conclusion while both premises hold."),
        (f"No {a} are {b}. No {b} are {c}.", f"no {a} are {c}", False, f"Nothing links {a} and {c}: something may be both as long as it is none of the {b}."),
    )
    premises, conclusion, valid, why = rng.choice(cases)
    return f"{premises} Does it follow that {conclusion}?", f"{why} So the conclusion {'follows' if valid else 'does not follow'}."


def truth_table(rng: Random) -> Problem:
    forms = (
        ("p -> q", lambda p, q: not p or q), ("not p or q", lambda p, q: not p or q), ("q -> p", lambda p, q: not q or p),
        ("not q -> not p", lambda p, q: q or not p), ("p and q", lambda p, q: p and q), ("not (not p or not q)", lambda p, q: p and q),
        ("p <-> q", lambda p, q: p == q), ("(p and q) or (not p and not q)", lambda p, q: p == q), ("p or q", lambda p, q: p or q),
        ("not p -> q", lambda p, q: p or q), ("not (p and q)", lambda p, q: not (p and q)), ("not p and not q", lambda p, q: not (p or q)),
    )
    (f, ff), (g, gg) = rng.sample(forms, 2)
    word = lambda v: "true" if v else "false"
    rows, differ = [], None
    for p, q in itertools.product((True, False), repeat=2):
        rows.append(f"p {word(p)}, q {word(q)}: the first is {word(ff(p, q))}, the second is {word(gg(p, q))}")
        if differ is None and ff(p, q) != gg(p, q):
            differ = (p, q)
    end = "They agree in every row, so they are equivalent." if differ is None else f"They differ at p {word(differ[0])}, q {word(differ[1])}, so they are not equivalent."
    return f"Are the formulas {f} and {g} equivalent?", "Go through the four cases.\n" + "\n".join(rows) + "\n" + end


def ordering(rng: Random) -> Problem:
    people = rng.sample(_NAMES, rng.randint(3, 6))
    more, most, least = rng.choice((("taller", "tallest", "shortest"), ("older", "oldest", "youngest"), ("faster", "fastest", "slowest"), ("richer", "richest", "poorest")))
    facts = [f"{a} is {more} than {b}" for a, b in zip(people, people[1:])]
    shuffled = rng.sample(facts, len(facts))
    steps = f"{people[0]} > {people[1]}"
    for name in people[2:]:
        steps += f" > {name}"
    a, b = sorted(rng.sample(range(len(people)), 2))
    ask = rng.choice((f"Who is the {most}, and who the {least}?", f"Who is {more}, {people[b]} or {people[a]}?"))
    end = f"The {most} is {people[0]} and the {least} is {people[-1]}." if "and who" in ask else f"{people[a]} stands before {people[b]}, so {people[a]} is {more}."
    return f"{'. '.join(shuffled)}. {ask}", f"Put the facts end to end: {steps}, where > means {more}. {end}"


def knights(rng: Random) -> Problem:
    a, b = rng.sample(_NAMES, 2)
    says = (
        ("{a} says: 'We are both knaves.'", lambda x, y: not x and not y), ("{a} says: '{b} is a knave.'", lambda x, y: not y),
        ("{a} says: 'At least one of us is a knave.'", lambda x, y: not x or not y), ("{a} says: 'We are of the same kind.'", lambda x, y: x == y),
        ("{a} says: '{b} is a knight.'", lambda x, y: y), ("{a} says: 'We are of different kinds.'", lambda x, y: x != y),
    )
    first, f = rng.choice(says)
    second, g = rng.choice(says)
    kind = lambda v: "a knight" if v else "a knave"
    lines, good = [], []
    for x, y in itertools.product((True, False), repeat=2):
        ok_a, ok_b = f(x, y) == x, g(y, x) == y
        case = f"Suppose {a} is {kind(x)} and {b} is {kind(y)}."
        if ok_a and ok_b:
            good.append((x, y))
            lines.append(f"{case} Then both statements fit.")
        else:
            who, holds = (a, f(x, y)) if not ok_a else (b, g(y, x))
            lines.append(f"{case} Then the statement of {who} is {'true' if holds else 'false'}, which {kind(holds == False)[2:]}s never make: impossible.")
    if not good:
        end = "No case remains: the statements can't have been made."
    elif len(good) == 1:
        end = f"Only one case remains: {a} is {kind(good[0][0])} and {b} is {kind(good[0][1])}."
    else:
        end = f"{len(good)} cases remain, so the statements don't decide it."
    text = (first.format(a=a, b=b) + " " + second.format(a=b, b=a))
    return f"Knights always tell the truth and knaves always lie. {text} What are they?", "\n".join(lines) + "\n" + end


def induction(rng: Random) -> Problem:
    k = rng.randint(1, 12)
    cases = (
        (f"{k} + {2 * k} + ... + {k}n = {k}n(n + 1)/2", f"For n = 1 both sides are {k}.", f"Adding {k}(n + 1) to both sides gives {k}n(n + 1)/2 + {k}(n + 1) = {k}(n + 1)(n + 2)/2, which is the formula for n + 1."),
        ("1 + 3 + 5 + ... + (2n - 1) = n^2", "For n = 1 both sides are 1.", "Adding 2n + 1 to both sides gives n^2 + 2n + 1 = (n + 1)^2, which is the formula for n + 1."),
        (f"{k + 1}^n - 1 is divisible by {k}", f"For n = 1 it is {k}, divisible by {k}.", f"{k + 1}^(n+1) - 1 = {k + 1}({k + 1}^n - 1) + {k}. The first summand is divisible by {k} by assumption, and so is the second."),
        (f"1 + {k + 1} + {k + 1}^2 + ... + {k + 1}^n = ({k + 1}^(n+1) - 1)/{k}", f"For n = 0 both sides are 1, since ({k + 1} - 1)/{k} = 1.", f"Adding {k + 1}^(n+1) gives ({k + 1}^(n+1) - 1 + {k} * {k + 1}^(n+1))/{k} = ({k + 1}^(n+2) - 1)/{k}, which is the formula for n + 1."),
        ("n^3 - n is divisible by 6", "For n = 1 it is 0.", "(n + 1)^3 - (n + 1) = (n^3 - n) + 3n(n + 1). The first summand is divisible by 6 by assumption; n(n + 1) is even, so 3n(n + 1) is divisible by 6 too."),
    )
    claim, base, step = rng.choice(cases)
    return f"Prove by induction that {claim} for every natural number n.", f"Base case. {base}\nInduction step. Assume the claim for n. {step} By induction the claim holds for all n."


def parity(rng: Random) -> Problem:
    a, b = rng.choice((("odd", "odd"), ("odd", "even"), ("even", "even")))
    c, d = rng.randint(1, 9), rng.randint(1, 9)
    form = lambda kind, v: f"2{v}" + (" + 1" if kind == "odd" else "")
    constant = c * (a == "odd") + d * (b == "odd")
    even = constant % 2 == 0
    return (f"Let m be {a} and n be {b}. Is {c}m + {d}n even or odd, or can't it be said?",
            f"Write m = {form(a, 'r')} and n = {form(b, 's')}. Then {c}m + {d}n = {2 * c}r + {2 * d}s + {constant}. The first two terms are even, and {constant} is {'even' if even else 'odd'}. So {c}m + {d}n is {'even' if even else 'odd'}.")


def sets(rng: Random) -> Problem:
    a, b = (sorted(rng.sample(range(1, 20), rng.randint(3, 8))) for _ in range(2))
    show = lambda s: "{" + ", ".join(map(str, sorted(s))) + "}" if s else "the empty set"
    both, either = set(a) & set(b), set(a) | set(b)
    return (f"Let A = {show(a)} and B = {show(b)}. Find the union, the intersection and A \\ B, and check the counting rule.",
            f"In both: {show(both)}. In at least one: {show(either)}. In A but not in B: {show(set(a) - set(b))}. The rule |A or B| = |A| + |B| - |A and B| gives {len(a)} + {len(b)} - {len(both)} = {len(either)}, as counted.")


FAMILIES = (chain, syllogism, truth_table, ordering, knights, induction, parity, sets)
