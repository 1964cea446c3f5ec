"""Problem families on equations, polynomials, sequences, matrices and calculus."""

from __future__ import annotations

from fractions import Fraction
from random import Random

Problem = tuple[str, str]


def _nonzero(rng: Random, low: int, high: int) -> int:
    value = 0
    while value == 0:
        value = rng.randint(low, high)
    return value


def poly(coefficients: list[int] | list[Fraction], x: str = "x") -> str:
    """Coefficients from the highest power down, as text."""
    out = ""
    degree = len(coefficients) - 1
    for i, c in enumerate(coefficients):
        power = degree - i
        if c == 0:
            continue
        size = abs(c)
        shown = "" if size == 1 and power else (f"({size})" if isinstance(size, Fraction) and size.denominator > 1 and power else str(size))
        variable = "" if power == 0 else x if power == 1 else f"{x}^{power}"
        sign = ("-" if c < 0 else "") if not out else (" - " if c < 0 else " + ")
        out += sign + shown + variable
    return out or "0"


def linear(rng: Random) -> Problem:
    x = rng.choice("xyztn")
    root, a, c = rng.randint(-20, 20), _nonzero(rng, -12, 12), _nonzero(rng, -12, 12)
    while a == c:
        c = _nonzero(rng, -12, 12)
    b = rng.randint(-40, 40)
    d = a * root + b - c * root
    left, right = poly([a, b], x), poly([c, d], x)
    steps = f"Move the terms with {x} to the left and the numbers to the right: {poly([a - c, 0], x)} = {d} - ({b}) = {d - b}."
    divide = f" Divide by {a - c}: {x} = {d - b}/({a - c}) = {root}." if a - c != 1 else f" So {x} = {root}."
    return f"Solve {left} = {right} for {x}.", steps + divide + f" Check: both sides equal {a * root + b}."


def linear_system(rng: Random) -> Problem:
    x, y = rng.randint(-12, 12), rng.randint(-12, 12)
    a, b, c, d = (_nonzero(rng, -9, 9) for _ in range(4))
    while a * d == b * c:
        d = _nonzero(rng, -9, 9)
    e, f = a * x + b * y, c * x + d * y
    show = lambda p, q: poly([p, 0], "x") + (" - " if q < 0 else " + ") + poly([abs(q), 0], "y")
    det = a * d - b * c
    steps = (f"Multiply the first equation by {d} and the second by {b} and subtract; y drops out: ({a})({d})x - ({c})({b})x = ({e})({d}) - ({f})({b}), "
             f"that is {det}x = {e * d - f * b}, so x = {x}. Put x = {x} in the first equation: {a} * ({x}) + ({b})y = {e}, so ({b})y = {e - a * x} and y = {y}. "
             f"Check in the second: {c} * ({x}) + ({d}) * ({y}) = {f}.")
    return f"Solve the system {show(a, b)} = {e}, {show(c, d)} = {f}.", steps


def quadratic(rng: Random) -> Problem:
    p, q = sorted((rng.randint(-12, 12), rng.randint(-12, 12)))
    a = rng.choice((1, 1, 1, 2, 3, -1))
    b, c = -a * (p + q), a * p * q
    disc = b * b - 4 * a * c
    way = rng.randint(0, 1)
    if way == 0 or a != 1:
        root = round(disc**0.5)
        both = f"x = {p}" if p == q else f"x = {p} and x = {q}"
        return f"Solve {poly([a, b, c])} = 0.", f"Here a = {a}, b = {b}, c = {c}. The discriminant is b^2 - 4ac = {b * b} - ({4 * a * c}) = {disc} = {root}^2. The formula gives x = ({-b} +- {root}) / {2 * a}, so {both}."
    return f"Factor {poly([1, b, c])}.", f"Look for two numbers with product {c} and sum {b}: they are {-p} and {-q}, since ({-p}) * ({-q}) = {c} and ({-p}) + ({-q}) = {b}. Hence {poly([1, b, c])} = ({poly([1, -p])})({poly([1, -q])})."


def complete_square(rng: Random) -> Problem:
    h, k = _nonzero(rng, -9, 9), rng.randint(-30, 30)
    b, c = 2 * h, h * h + k
    low = f"The square is never negative and vanishes at x = {-h}, so the minimum is {k}, at x = {-h}."
    tail = f" + {k}" if k > 0 else f" - {-k}" if k else ""
    return f"Find the minimum of {poly([1, b, c])}.", f"Half of {b} is {h}, and ({h})^2 = {h * h}. So {poly([1, b, c])} = ({poly([1, h])})^2 - {h * h} + ({c}) = ({poly([1, h])})^2{tail}. {low}"


def expand(rng: Random) -> Problem:
    p = [_nonzero(rng, -6, 6), *(rng.randint(-9, 9) for _ in range(rng.randint(1, 2)))]
    q = [_nonzero(rng, -6, 6), *(rng.randint(-9, 9) for _ in range(rng.randint(1, 2)))]
    total = [0] * (len(p) + len(q) - 1)
    lines = []
    for i, c in enumerate(p):
        if c == 0:
            continue
        row = [0] * i + [c * d for d in q] + [0] * (len(total) - i - len(q))
        total = [s + t for s, t in zip(total, row)]
        term = poly([c] + [0] * (len(p) - 1 - i))
        lines.append(f"({term}) * ({poly(q)}) = {poly(row)}")
    return f"Expand ({poly(p)})({poly(q)}).", "Multiply term by term:\n" + "\n".join(lines) + f"\nCollect equal powers: ({poly(p)})({poly(q)}) = {poly(total)}."


def polynomial_division(rng: Random) -> Problem:
    r = _nonzero(rng, -6, 6)
    q = [_nonzero(rng, -5, 5), *(rng.randint(-9, 9) for _ in range(rng.randint(1, 3)))]
    rest = rng.randint(-9, 9)
    dividend = [*q, 0]
    for i in range(len(q)):
        dividend[i + 1] -= r * q[i]
    dividend[-1] += rest
    lines, carry = [f"Bring down {dividend[0]}."], dividend[0]
    for c in dividend[1:]:
        lines.append(f"{c} + ({r}) * ({carry}) = {c + r * carry}.")
        carry = c + r * carry
    return f"Divide {poly(dividend)} by {poly([1, -r])}.", f"Use Horner's scheme at x = {r}. " + " ".join(lines) + f" The quotient is {poly(q)} and the remainder is {carry}."


def derivative(rng: Random) -> Problem:
    kind = rng.randint(0, 3)
    if kind == 0:
        p = [_nonzero(rng, -9, 9), *(rng.randint(-9, 9) for _ in range(rng.randint(2, 4)))]
        n = len(p) - 1
        d = [c * (n - i) for i, c in enumerate(p[:-1])]
        at = rng.randint(-3, 3)
        value = sum(c * at ** (len(d) - 1 - i) for i, c in enumerate(d))
        return f"Find the slope of f(x) = {poly(p)} at x = {at}.", f"Differentiate term by term, using (x^n)' = n x^(n-1): f'(x) = {poly(d)}. At x = {at} this is f'({at}) = {value}. The slope is {value}."
    if kind == 1:
        a, b, n = _nonzero(rng, -7, 7), rng.randint(-9, 9), rng.randint(2, 7)
        inner = poly([a, b])
        return f"Differentiate f(x) = ({inner})^{n}.", f"By the chain rule the derivative is {n}({inner})^{n - 1} times the derivative of the inner function, which is {a}. So f'(x) = {n * a}({inner})^{n - 1}."
    if kind == 2:
        name, der = rng.choice((("sin", "cos"), ("exp", "exp")))
        p = [_nonzero(rng, -5, 5), rng.randint(-9, 9), rng.randint(-9, 9)]
        d = [2 * p[0], p[1]]
        return f"Differentiate f(x) = ({poly(p)}) {name}(x).", f"The product rule (uv)' = u'v + uv' with u = {poly(p)} and v = {name}(x): u' = {poly(d)} and v' = {der}(x). Hence f'(x) = ({poly(d)}) {name}(x) + ({poly(p)}) {der}(x)."
    k, a = rng.randint(2, 9), rng.choice(("sin", "cos", "exp", "log"))
    der = {"sin": f"{k} cos({k}x)", "cos": f"-{k} sin({k}x)", "exp": f"{k} exp({k}x)", "log": "1/x"}[a]
    why = "log(kx) = log(k) + log(x), and log(k) is constant" if a == "log" else f"the inner function {k}x has the derivative {k}"
    return f"What is the derivative of {a}({k}x)?", f"By the chain rule, since {why}, it is {der}."


def integral(rng: Random) -> Problem:
    p = [_nonzero(rng, -6, 6), *(rng.randint(-9, 9) for _ in range(rng.randint(1, 2)))]
    n = len(p) - 1
    primitive = [Fraction(c, n - i + 1) for i, c in enumerate(p)] + [Fraction(0)]
    low = rng.randint(-3, 2)
    high = low + rng.randint(1, 4)
    value = lambda t: sum(c * Fraction(t) ** (len(primitive) - 1 - i) for i, c in enumerate(primitive))
    return (f"Evaluate the integral of {poly(p)} from x = {low} to x = {high}.",
            f"An antiderivative is F(x) = {poly(primitive)}. F({high}) = {value(high)} and F({low}) = {value(low)}. The integral is F({high}) - F({low}) = {value(high)} - ({value(low)}) = {value(high) - value(low)}.")


def arithmetic_series(rng: Random) -> Problem:
    a, d, n = rng.randint(-20, 40), _nonzero(rng, -9, 12), rng.randint(8, 60)
    last = a + (n - 1) * d
    shown = ", ".join(str(a + i * d) for i in range(4))
    return f"Find the sum of the first {n} terms of {shown}, ...", f"Each term is {d} more than the one before. Term {n} is {a} + {n - 1} * ({d}) = {last}. First and last add up to {a + last}, and so does every such pair, hence the sum is {n} * ({a + last}) / 2 = {n * (a + last) // 2}."


def geometric_series(rng: Random) -> Problem:
    a, r, n = rng.randint(1, 9), rng.choice((2, 3, 4, 5)), rng.randint(4, 9)
    return f"Find the sum of {n} terms of the geometric series {a}, {a * r}, {a * r * r}, ...", f"Let S = {a} + {a * r} + ... + {a * r ** (n - 1)}. Then {r}S - S = {a * r**n} - {a}, because everything in between cancels. So {r - 1}S = {a * r**n - a} and S = {(a * r**n - a) // (r - 1)}."


def recurrence(rng: Random) -> Problem:
    p, q, a, b, n = rng.randint(1, 3), rng.choice((-2, -1, 1, 2)), rng.randint(0, 5), rng.randint(1, 5), rng.randint(5, 9)
    values = [a, b]
    lines = []
    while len(values) <= n:
        k = len(values)
        values.append(p * values[-1] + q * values[-2])
        lines.append(f"a({k}) = {p} * ({values[k - 1]}) + ({q}) * ({values[k - 2]}) = {values[k]}")
    return f"A sequence has a(0) = {a}, a(1) = {b} and a(n) = {p} a(n-1) + ({q}) a(n-2). Find a({n}).", "Compute one term after another:\n" + "\n".join(lines) + f"\nSo a({n}) = {values[n]}."


def determinant(rng: Random) -> Problem:
    m = [[rng.randint(-6, 6) for _ in range(3)] for _ in range(3)]
    (a, b, c), (d, e, f), (g, h, i) = m
    m1, m2, m3 = e * i - f * h, d * i - f * g, d * h - e * g
    det = a * m1 - b * m2 + c * m3
    return f"Compute the determinant of the matrix [{', '.join(map(str, m))}].".replace("'", ""), f"Expand along the first row. The minors are ({e})({i}) - ({f})({h}) = {m1}, ({d})({i}) - ({f})({g}) = {m2} and ({d})({h}) - ({e})({g}) = {m3}. So det = ({a})({m1}) - ({b})({m2}) + ({c})({m3}) = {det}." + (" The matrix is singular." if det == 0 else "")


def matrix_product(rng: Random) -> Problem:
    a, b = ([[rng.randint(-6, 6) for _ in range(2)] for _ in range(2)] for _ in range(2))
    lines, c = [], [[0, 0], [0, 0]]
    for i in range(2):
        for j in range(2):
            c[i][j] = a[i][0] * b[0][j] + a[i][1] * b[1][j]
            lines.append(f"row {i + 1}, column {j + 1}: ({a[i][0]})({b[0][j]}) + ({a[i][1]})({b[1][j]}) = {c[i][j]}")
    return f"Multiply the matrices A = {a} and B = {b}.", "Each entry is a row of A times a column of B:\n" + "\n".join(lines) + f"\nAB = {c}."


def line_through(rng: Random) -> Problem:
    x1, y1, dx, dy = rng.randint(-8, 8), rng.randint(-8, 8), _nonzero(rng, -6, 6), rng.randint(-12, 12)
    slope = Fraction(dy, dx)
    b = y1 - slope * x1
    return f"Find the line through ({x1}, {y1}) and ({x1 + dx}, {y1 + dy}).", f"The slope is ({y1 + dy} - ({y1})) / ({x1 + dx} - ({x1})) = {dy}/({dx}) = {slope}. The intercept is {y1} - ({slope}) * ({x1}) = {b}. The line is y = {poly([slope, b])}."


def distance(rng: Random) -> Problem:
    triple = rng.choice(((3, 4, 5), (5, 12, 13), (8, 15, 17), (7, 24, 25), (20, 21, 29)))
    k, x, y = rng.randint(1, 5), rng.randint(-9, 9), rng.randint(-9, 9)
    a, b, c = (k * t for t in triple)
    return f"How far apart are the points ({x}, {y}) and ({x + a}, {y + b})?", f"The differences are {a} and {b}. By Pythagoras the distance squared is {a}^2 + {b}^2 = {a * a} + {b * b} = {c * c}, so the distance is {c}."


FAMILIES = (linear, linear_system, quadratic, complete_square, expand, polynomial_division, derivative, integral, arithmetic_series,
            geometric_series, recurrence, determinant, matrix_product, line_through, distance)
