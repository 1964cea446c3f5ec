"""Problem families on whole numbers, fractions and quantities."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

Problem = tuple[str, str]
_PEOPLE = "Ada Ben Clara Dmitri Emma Farid Grace Hugo Ines Jamal Kiri Leo Maya Noor Otto Priya Quinn Rosa Sam Tala Uma Viktor Wen Yara Zoe".split()
_THINGS = "apples books coins pencils stamps marbles cards bricks candles tickets seeds bottles shells buttons".split()


def long_addition(rng: Random) -> Problem:
    a, b = (rng.randint(100, 10 ** rng.randint(3, 7)) for _ in range(2))
    steps, carry = [], 0
    x, y, place = a, b, 0
    names = ("ones", "tens", "hundreds", "thousands", "ten thousands", "hundred thousands", "millions", "ten millions")
    while x or y:
        dx, dy = x % 10, y % 10
        total = dx + dy + carry
        given = f" + {carry}" if carry else ""
        steps.append(f"{names[place].capitalize()}: {dx} + {dy}{given} = {total}, write {total % 10}" + (", carry 1." if total > 9 else "."))
        x, y, place, carry = x // 10, y // 10, place + 1, total // 10
    if carry:
        steps.append("The last carry gives a leading 1.")
    return rng.choice((f"Add {a} and {b}.", f"Compute {a} + {b}.", f"What is the sum of {a} and {b}?")), "\n".join(steps) + f"\nSo {a} + {b} = {a + b}."


def long_multiplication(rng: Random) -> Problem:
    a, b = rng.randint(12, 9999), rng.randint(11, 999)
    digits = [(int(d), len(str(b)) - 1 - i) for i, d in enumerate(str(b))]
    parts = [(d * 10**p, a * d * 10**p) for d, p in digits if d]
    lines = [f"{a} x {d} = {v}" for d, v in parts]
    total = " + ".join(str(v) for _, v in parts)
    split = " + ".join(str(d) for d, _ in parts)
    return f"Multiply {a} by {b}.", f"Write {b} = {split} and multiply part by part:\n" + "\n".join(lines) + f"\nThe sum is {total} = {a * b}. Therefore {a} x {b} = {a * b}."


def division(rng: Random) -> Problem:
    b, n = rng.randint(3, 97), rng.randint(200, 99999)
    lines, rest = [], 0
    for digit in str(n):
        rest = rest * 10 + int(digit)
        q = rest // b
        if q or lines:
            lines.append(f"{rest} divided by {b} is {q}, remainder {rest - q * b}.")
        rest -= q * b
    return f"Divide {n} by {b}, with remainder.", "Bring the digits down one at a time. " + " ".join(lines) + f" So {n} = {b} * {n // b} + {n % b}: the quotient is {n // b} and the remainder is {n % b}."


def euclid(rng: Random) -> Problem:
    g = rng.randint(1, 40)
    a, b = sorted((g * rng.randint(5, 400), g * rng.randint(5, 400)), reverse=True)
    lines, x, y = [], a, b
    while y:
        lines.append(f"{x} = {x // y} * {y} + {x % y}")
        x, y = y, x % y
    text = f"Find the greatest common divisor of {a} and {b}" + rng.choice((".", " by Euclid's algorithm.", ", and then their least common multiple."))
    lcm = f" The least common multiple is {a} * {b} / {x} = {a * b // x}." if "least" in text else ""
    return text, "Divide repeatedly:\n" + "\n".join(lines) + f"\nThe last remainder that is not zero is {x}, so gcd({a}, {b}) = {x}.{lcm}"


def bezout(rng: Random) -> Problem:
    a, b = rng.randint(20, 900), rng.randint(11, 700)
    r0, r1, s0, s1, t0, t1 = a, b, 1, 0, 0, 1
    lines = [f"{a} = 1 * {a} + 0 * {b}", f"{b} = 0 * {a} + 1 * {b}"]
    while r0 % r1:
        q = r0 // r1
        r0, r1, s0, s1, t0, t1 = r1, r0 - q * r1, s1, s0 - q * s1, t1, t0 - q * t1
        lines.append(f"{r1} = ({s1}) * {a} + ({t1}) * {b}    (subtract {q} times the line before)")
    assert s1 * a + t1 * b == r1
    return f"Find integers s and t with s * {a} + t * {b} = gcd({a}, {b}).", "Keep every remainder as a combination of the two numbers:\n" + "\n".join(lines) + f"\nThe next remainder is 0, so gcd = {r1}, s = {s1}, t = {t1}."


def prime_factors(rng: Random) -> Problem:
    n = math.prod(rng.choice((2, 2, 3, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)) for _ in range(rng.randint(2, 6)))
    lines, x, p, factors = [], n, 2, []
    while x > 1:
        if x % p == 0:
            lines.append(f"{x} / {p} = {x // p}")
            factors.append(p)
            x //= p
        else:
            p += 1
    powers = " * ".join(f"{p}^{factors.count(p)}" if factors.count(p) > 1 else str(p) for p in sorted(set(factors)))
    count = math.prod(factors.count(p) + 1 for p in set(factors))
    if rng.random() < 0.5:
        how = " * ".join(f"({factors.count(p)} + 1)" for p in sorted(set(factors)))
        return f"How many positive divisors does {n} have?", "Factor it first: " + ", ".join(lines) + f". So {n} = {powers}. A divisor picks an exponent for each prime, which can be done in {how} = {count} ways. There are {count} divisors."
    return f"Write {n} as a product of primes.", "Divide by the smallest prime that goes in, again and again: " + ", ".join(lines) + f". Hence {n} = {powers}."


def is_prime(rng: Random) -> Problem:
    n = rng.randint(50, 2500) | 1
    root, d = math.isqrt(n), None
    tried = []
    for p in range(2, root + 1):
        if all(p % q for q in range(2, p)):
            if n % p == 0:
                d = p
                break
            tried.append(f"{n} = {p} * {n // p} + {n % p}")
    why = f"It is enough to try primes up to the square root, and {root}^2 = {root * root} <= {n} < {(root + 1) ** 2}. " + "; ".join(tried) + ("; " if tried else "")
    end = f"{n} = {d} * {n // d}. So {n} is not prime." if d else f"no prime up to {root} divides it. So {n} is prime."
    return f"Is {n} a prime number?", why + end


def modular_power(rng: Random) -> Problem:
    a, e, m = rng.randint(2, 30), rng.randint(5, 200), rng.randint(7, 101)
    lines, power, k, result, parts = [], a % m, 1, 1, []
    while k <= e:
        lines.append(f"{a}^{k} = {power} (mod {m})")
        if e & k:
            parts.append(power)
            result = result * power % m
        power, k = power * power % m, k * 2
    binary = " + ".join(str(1 << i) for i in range(e.bit_length()) if e >> i & 1)
    return f"What is the remainder of {a}^{e} on division by {m}?", "Square repeatedly:\n" + "\n".join(lines) + f"\nSince {e} = {binary}, multiply the matching powers: " + " * ".join(map(str, parts)) + f" = {result} (mod {m}). The remainder is {result}."


def fractions(rng: Random) -> Problem:
    a, b, c, d = rng.randint(1, 20), rng.randint(2, 24), rng.randint(1, 20), rng.randint(2, 24)
    x, y = Fraction(a, b), Fraction(c, d)
    kind = rng.choice("+-*/")
    if kind in "+-":
        lcm = math.lcm(b, d)
        top1, top2 = a * lcm // b, c * lcm // d
        total = top1 + top2 if kind == "+" else top1 - top2
        value = Fraction(total, lcm)
        steps = f"The common denominator of {b} and {d} is {lcm}. {a}/{b} = {top1}/{lcm} and {c}/{d} = {top2}/{lcm}. Then {top1} {kind} {top2} = {total}, which gives {total}/{lcm}"
        raw = f"{total}/{lcm}"
    elif kind == "*":
        value = x * y
        steps = f"Multiply numerators and denominators: {a} * {c} = {a * c} and {b} * {d} = {b * d}, which gives {a * c}/{b * d}"
        raw = f"{a * c}/{b * d}"
    else:
        value = x / y
        steps = f"Dividing by {c}/{d} is multiplying by {d}/{c}: {a} * {d} = {a * d} and {b} * {c} = {b * c}, which gives {a * d}/{b * c}"
        raw = f"{a * d}/{b * c}"
    end = "." if str(value) == raw else f". In lowest terms this is {value}."
    return f"Calculate {a}/{b} {kind} {c}/{d}.", steps + end


def percent(rng: Random) -> Problem:
    price, rate = rng.randint(4, 400) * 5, rng.choice((5, 10, 12, 15, 20, 25, 30, 40, 60, 75))
    change = Fraction(price * rate, 100)
    up = rng.random() < 0.5
    end = price + change if up else price - change
    show = lambda v: str(v) if v.denominator == 1 else f"{float(v):.2f}"
    verb = "rises" if up else "falls"
    sign = "+" if up else "-"
    return f"A price of {price} {verb} by {rate} percent. What is the new price?", f"{rate} percent of {price} is {price} * {rate} / 100 = {show(change)}. The price {verb} by that much, so the new price is {price} {sign} {show(change)} = {show(Fraction(end))}."


def shares(rng: Random) -> Problem:
    one, two, three = rng.sample(_PEOPLE, 3)
    thing = rng.choice(_THINGS)
    base, times, more = rng.randint(3, 60), rng.randint(2, 6), rng.randint(2, 30)
    second, third = base * times, base * times + more
    total = base + second + third
    kind = rng.randint(0, 1)
    if kind:
        return (f"{one} has {base} {thing}. {two} has {times} times as many as {one}, and {three} has {more} more than {two}. How many {thing} do they have together?",
                f"{two} has {times} * {base} = {second} {thing}. {three} has {second} + {more} = {third}. Together they have {base} + {second} + {third} = {total} {thing}.")
    return (f"{one}, {two} and {three} have {total} {thing} together. {two} has {times} times as many as {one}, and {three} has {more} more than {two}. How many does {one} have?",
            f"Let {one} have n {thing}. Then {two} has {times}n and {three} has {times}n + {more}. Together: n + {times}n + {times}n + {more} = {total}, so {2 * times + 1}n = {total} - {more} = {total - more}, and n = {total - more} / {2 * times + 1} = {base}. {one} has {base} {thing}.")


def speed(rng: Random) -> Problem:
    v, w, hours = rng.randint(3, 24) * 5, rng.randint(3, 24) * 5, rng.randint(2, 9)
    distance = (v + w) * hours
    return (f"Two trains start {distance} km apart and run towards each other at {v} km/h and {w} km/h. When do they meet, and where?",
            f"The gap closes at {v} + {w} = {v + w} km/h. It is {distance} km, so they meet after {distance} / {v + w} = {hours} hours. The first train has then gone {v} * {hours} = {v * hours} km and the second {w} * {hours} = {w * hours} km; the check is {v * hours} + {w * hours} = {distance}.")


def base_change(rng: Random) -> Problem:
    n, b = rng.randint(20, 5000), rng.choice((2, 3, 5, 7, 8, 12, 16))
    digits = "0123456789ABCDEF"
    lines, x, out = [], n, ""
    while x:
        lines.append(f"{x} = {b} * {x // b} + {x % b}")
        out = digits[x % b] + out
        x //= b
    return f"Write the number {n} in base {b}.", "Divide by the base and keep the remainders:\n" + "\n".join(lines) + f"\nRead from the last remainder to the first: {out}. So {n} is {out} in base {b}."


def combinations(rng: Random) -> Problem:
    n = rng.randint(5, 20)
    k = rng.randint(2, min(6, n - 1))
    value = math.comb(n, k)
    top = " * ".join(str(n - i) for i in range(k))
    bottom = " * ".join(str(k - i) for i in range(k))
    what = rng.choice((f"In how many ways can a committee of {k} be chosen from {n} people?", f"How many subsets with {k} elements has a set of {n} elements?", f"Compute the binomial coefficient C({n}, {k})."))
    return what, f"The order does not matter, so the number is C({n}, {k}) = ({top}) / ({bottom}) = {math.perm(n, k)} / {math.factorial(k)} = {value}."


def dice(rng: Random) -> Problem:
    faces, total = rng.choice((4, 6, 8, 10)), 0
    total = rng.randint(2, 2 * faces)
    pairs = [(i, total - i) for i in range(1, faces + 1) if 1 <= total - i <= faces]
    p = Fraction(len(pairs), faces * faces)
    listed = ", ".join(f"({a}, {b})" for a, b in pairs)
    return f"Two fair dice with {faces} faces each are rolled. What is the probability that the sum is {total}?", f"There are {faces} * {faces} = {faces * faces} equally likely outcomes. The sum is {total} for {listed}: {len(pairs)} of them. The probability is {len(pairs)}/{faces * faces}" + (f" = {p}." if str(p) != f"{len(pairs)}/{faces * faces}" else ".")


def mean_median(rng: Random) -> Problem:
    data = [rng.randint(1, 60) for _ in range(rng.randint(5, 9))]
    ordered, n = sorted(data), len(data)
    mean = Fraction(sum(data), n)
    if n % 2:
        median = f"the middle one, number {n // 2 + 1}, is {ordered[n // 2]}"
    else:
        a, b = ordered[n // 2 - 1], ordered[n // 2]
        median = f"the two in the middle are {a} and {b}, so the median is ({a} + {b}) / 2 = {(a + b) / 2:g}"
    listed = ", ".join(map(str, data))
    return f"Find the mean and the median of {listed}.", f"The sum is {' + '.join(map(str, data))} = {sum(data)}. There are {n} values, so the mean is {sum(data)}/{n} = {float(mean):.4g}. In order they are {', '.join(map(str, ordered))}; {median}."


FAMILIES = (long_addition, long_multiplication, division, euclid, bezout, prime_factors, is_prime, modular_power, fractions, percent,
            shares, speed, base_change, combinations, dice, mean_median)
