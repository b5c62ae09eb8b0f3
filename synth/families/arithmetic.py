"""Arithmetic: long multiplication, long division, a shopping bill, a journey in legs."""

from __future__ import annotations

from random import Random

from synth.families.base import Family, Parameters, Phrases, Size, Worked

NOTES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)  # money handed over, in whole units


def draw_multiplication(dice: Random, level: int, _: Size) -> Parameters:
    a = dice.randint(10 ** (level + 1), 10 ** (level + 2) - 1)
    b = dice.randint(10 ** ((level + 1) // 2), 10 ** ((level + 1) // 2 + 1) - 1)
    return {"a": a, "b": b, "variant": dice.randrange(2)}


def work_multiplication(p: Parameters, say: Phrases) -> Worked:
    """Place value by place value, then a running sum."""
    a, b = p["a"], p["b"]
    digits = str(b)
    parts = [int(digit) * 10 ** (len(digits) - 1 - i) for i, digit in enumerate(digits) if digit != "0"]
    steps = []
    if len(parts) > 1:
        steps.append(say("split", equation=f"{b} = {' + '.join(map(str, parts))}"))
    products = [a * part for part in parts]
    steps += [say("partial", equation=f"{a} × {part} = {a * part}") for part in parts]
    total = products[0]
    for product in products[1:]:
        steps.append(say("add", equation=f"{total} + {product} = {total + product}"))
        total += product
    equations = 2 * len(parts) if len(parts) > 1 else 1
    return Worked(say.problem(p["variant"], a=a, b=b), steps, str(total), equations)


def draw_division(dice: Random, level: int, _: Size) -> Parameters:
    divisor = dice.randint(3, 12) if level == 1 else dice.randint(10 ** (level // 2), 10 ** (level // 2 + 1) - 1)
    dividend = dice.randint(10 ** (level + 2), 10 ** (level + 3) - 1)
    return {"a": dividend, "b": divisor, "ask": dice.choice(("quotient", "remainder")), "variant": dice.randrange(2)}


def work_division(p: Parameters, say: Phrases) -> Worked:
    """Digit by digit from the left, as on paper."""
    a, b = p["a"], p["b"]
    steps, quotient, current, equations = [], 0, 0, 0
    for digit in str(a):
        current = current * 10 + int(digit)
        q, rest = divmod(current, b)
        if quotient or q:
            steps.append(say("bring", digit=digit, equation=f"{current} = {b} × {q} + {rest}", q=q))
            equations += 1
        quotient, current = quotient * 10 + q, rest
    steps.append(say("check", equation=f"{b} × {quotient} + {current} = {a}"))
    answer = quotient if p["ask"] == "quotient" else current
    problem = say.problem(p["variant"], a=a, b=b, asked=say(p["ask"]))
    return Worked(problem, steps, str(answer), equations + 1)


def draw_shopping(dice: Random, level: int, _: Size) -> Parameters:
    kinds = level + 1
    prices = [dice.randint(2, 9 + 15 * level) for _ in range(kinds)]
    counts = [dice.randint(2, 4 + 2 * level) for _ in range(kinds)]
    total = sum(price * count for price, count in zip(prices, counts, strict=True))
    paid = next(note for note in NOTES if note > total)
    items = dice.sample(range(8), kinds)
    return {"items": items, "prices": prices, "counts": counts, "paid": paid, "who": dice.randrange(24)}


def work_shopping(p: Parameters, say: Phrases) -> Worked:
    """Each kind, a running total, the change."""
    names = [say.things("items")[item] for item in p["items"]]
    bought = list(zip(names, p["counts"], p["prices"], strict=True))
    lines = [say("item", item=name, count=count, price=price) for name, count, price in bought]
    problem = say.problem(
        0, who=say.things("names")[p["who"]], list="\n".join(f"- {line}" for line in lines), paid=p["paid"]
    )
    steps = [say("cost", item=name, equation=f"{count} × {price} = {count * price}") for name, count, price in bought]
    total, equations = p["counts"][0] * p["prices"][0], len(bought)
    for _, count, price in bought[1:]:
        steps.append(say("total", equation=f"{total} + {count * price} = {total + count * price}"))
        total += count * price
        equations += 1
    steps.append(say("change", equation=f"{p['paid']} - {total} = {p['paid'] - total}"))
    return Worked(problem, steps, str(p["paid"] - total), equations + 1)


def draw_journey(dice: Random, level: int, _: Size) -> Parameters:
    legs = [[dice.randint(2, 20 + 20 * level) * 3, dice.randint(1, 3 + 3 * level) * 5] for _ in range(level + 1)]
    return {"legs": legs, "who": dice.randrange(24), "variant": dice.randrange(2)}


def work_journey(p: Parameters, say: Phrases) -> Worked:
    """Speeds in km/h and times in minutes to metres: a speed of v km/h is v × 1000 / 60 metres a minute."""
    legs = p["legs"]
    lines = [say("leg", number=i, speed=speed, minutes=minutes) for i, (speed, minutes) in enumerate(legs, start=1)]
    who = say.things("names")[p["who"]]
    problem = say.problem(p["variant"], who=who, list="\n".join(f"- {line}" for line in lines))
    steps, total, equations = [], 0, 0
    for number, (speed, minutes) in enumerate(legs, start=1):
        metres = speed * 1000 // 60 * minutes
        steps.append(
            say(
                "rate",
                number=number,
                rate=f"{speed} × 1000 / 60 = {speed * 1000 // 60}",
                way=f"{speed * 1000 // 60} × {minutes} = {metres}",
            )
        )
        equations += 2
        if number > 1:
            steps.append(say("total", equation=f"{total} + {metres} = {total + metres}"))
            equations += 1
        total += metres
    return Worked(problem, steps, str(total), equations)


MULTIPLICATION = Family("multiplication", "mathematics", draw_multiplication, work_multiplication)
DIVISION = Family("division", "mathematics", draw_division, work_division)
SHOPPING = Family("shopping", "mathematics", draw_shopping, work_shopping)
JOURNEY = Family("journey", "science", draw_journey, work_journey)
