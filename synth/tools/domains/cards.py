"""Bank cards: a lost card with a payment that is not the customer's, a higher limit, and a dispute that comes too late.

Rules (texts/): 1 confirm the customer; 2 block a lost or stolen card before its replacement is ordered, express for
premium customers, standard for others; 3 a limit may be raised to `factor` times the present one at most, otherwise
decline and change nothing; 4 payments can be disputed for `days` days.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any

from synth.tools.domain import (
    AMOUNT,
    DATE,
    DAY,
    FLAG,
    STAMP,
    TEXT,
    Domain,
    Draw,
    Drawn,
    Move,
    call,
    choice,
    code,
    forbid,
    move,
    record,
    verify_tool,
)
from synth.tools.environment import Order, State, Tool, ToolError

REASON, DELIVERY = choice("lost", "stolen"), choice("standard", "express")
TABLES = {
    "customers": {"name": TEXT, "code": TEXT, "tier": choice("standard", "premium")},
    "cards": {"customer_id": TEXT, "last_digits": TEXT, "status": choice("active", "lost", "stolen"), "limit": AMOUNT},
    "payments": {"card_id": TEXT, "date": DATE, "merchant": TEXT, "amount": AMOUNT, "disputed": FLAG},
    "deliveries": {"card_id": TEXT, "delivery": DELIVERY},
}


def get_customer(state: State, customer_id: str) -> Any:
    customer = record(state, "customers", customer_id, "customer")
    return {"name": customer["name"], "tier": customer["tier"]}


def list_cards(state: State, customer_id: str) -> Any:
    record(state, "customers", customer_id, "customer")
    return [{"card_id": key, **card} for key, card in state["cards"].items() if card["customer_id"] == customer_id]


def list_payments(state: State, card_id: str) -> Any:
    record(state, "cards", card_id, "card")
    return [{"payment_id": key, **one} for key, one in state["payments"].items() if one["card_id"] == card_id]


def block_card(state: State, card_id: str, reason: str) -> Any:
    card = record(state, "cards", card_id, "card")
    if card["status"] != "active":
        raise ToolError("blocked", f"card {card_id} is blocked already")
    card["status"] = reason
    return {"card_id": card_id, "status": reason}


def order_replacement(state: State, card_id: str, delivery: str) -> Any:
    if record(state, "cards", card_id, "card")["status"] == "active":
        raise ToolError("active", f"card {card_id} is not blocked")
    key = code("NEW", card_id, delivery)
    state["deliveries"][key] = {"card_id": card_id, "delivery": delivery}
    return {"delivery_id": key}


def set_limit(state: State, card_id: str, limit: int) -> Any:
    record(state, "cards", card_id, "card")["limit"] = limit
    return {"card_id": card_id, "limit": limit, "confirmation": code("LIM", card_id, limit)}


def dispute_payment(state: State, payment_id: str) -> Any:
    payment = record(state, "payments", payment_id, "payment")
    if payment["disputed"]:
        raise ToolError("disputed", f"payment {payment_id} is disputed already")
    payment["disputed"] = True
    return {"payment_id": payment_id, "dispute": code("DIS", payment_id)}


def _bank(draw: Draw) -> tuple[State, str, str]:
    """(state, customer, card) with two cards a customer and a week of payments."""
    time = draw.time()
    customers = {
        draw.key("C"): {"name": name, "code": draw.digits(6), "tier": draw.dice.choice(["standard", "premium"])}
        for name in draw.names(3)
    }
    cards: dict[str, dict[str, Any]] = {}
    payments: dict[str, dict[str, Any]] = {}
    for customer_id in customers:
        for first in draw.dice.sample("123456789", 2):
            card_id = draw.key("CARD")
            limit = 100 * draw.amount(5, 30)
            digits = first + draw.digits(3)
            cards[card_id] = {"customer_id": customer_id, "last_digits": digits, "status": "active", "limit": limit}
            for merchant in draw.things("merchants", 3):
                payments[draw.key("PAY")] = {
                    "card_id": card_id, "date": (time - timedelta(days=draw.dice.randint(0, 6))).strftime(DAY),
                    "merchant": merchant, "amount": draw.amount(3, 240), "disputed": False,
                }  # fmt: skip
    customer_id = draw.dice.choice(list(customers))
    card_id = draw.dice.choice([key for key, card in cards.items() if card["customer_id"] == customer_id])
    state = {
        "customers": customers, "cards": cards, "payments": payments, "deliveries": {}, "session": draw.session(time),
    }  # fmt: skip
    return state, customer_id, card_id


def _identify(state: State, customer_id: str) -> tuple[dict[str, Any], list[Move]]:
    secret = state["customers"][customer_id]["code"]
    places = {"customer": customer_id, "code": secret}
    return places, [move("identify", call("verify_customer", customer_id=customer_id, code=secret))]


def lost(draw: Draw) -> Drawn:
    """Block, replace, and dispute the payment that the customer does not know."""
    state, customer_id, card_id = _bank(draw)
    places, opening = _identify(state, customer_id)
    reason = draw.dice.choice(["lost", "stolen"])
    delivery = "express" if state["customers"][customer_id]["tier"] == "premium" else "standard"
    payment_id, payment = draw.dice.choice([one for one in state["payments"].items() if one[1]["card_id"] == card_id])
    moves = [
        *opening,
        move("look", call("list_cards", customer_id=customer_id), call("get_customer", customer_id=customer_id)),
        move("crux", call("block_card", card_id=card_id, reason=reason)),
        move("act", call("order_replacement", card_id=card_id, delivery=delivery)),
        move("look", call("list_payments", card_id=card_id)),
        move("act", call("dispute_payment", payment_id=payment_id)),
    ]
    other = "standard" if delivery == "express" else "express"
    never = [forbid(call("order_replacement", card_id=card_id, delivery=other), "delivery")]
    new, dispute = code("NEW", card_id, delivery), code("DIS", payment_id)
    places |= {
        "digits": state["cards"][card_id]["last_digits"], "reason": draw.words["reasons"][reason],
        "merchant": payment["merchant"], "new": new, "dispute": dispute, "delivery": draw.words["deliveries"][delivery],
        "amount": draw.money(payment["amount"]),
    }  # fmt: skip
    return Drawn("lost", state, moves, [new, dispute, str(payment["amount"])], places, never)


def limit(draw: Draw) -> Drawn:
    """Raise a limit, or decline what is above the factor."""
    state, customer_id, card_id = _bank(draw)
    places, opening = _identify(state, customer_id)
    card, factor = state["cards"][card_id], draw.settings["factor"]
    too_high = draw.dice.random() < 0.5
    step = card["limit"] // 10
    wished = (
        card["limit"] * factor + step * draw.dice.randint(1, 9)
        if too_high
        else card["limit"] + step * draw.dice.randint(1, 9)
    )
    places |= {
        "digits": card["last_digits"], "wished": draw.money(wished), "present": draw.money(card["limit"]),
        "most": draw.money(card["limit"] * factor),
    }  # fmt: skip
    opening.append(move("look", call("list_cards", customer_id=customer_id)))
    raised = call("set_limit", card_id=card_id, limit=wished)
    if too_high:
        case = code("CASE", card_id, 3)
        moves = [*opening, move("crux", call("decline_request", subject=card_id, rule=3))]
        return Drawn("limit_declined", state, moves, [case], {**places, "case": case}, [forbid(raised)])
    confirmation = code("LIM", card_id, wished)
    moves = [*opening, move("crux", raised)]
    return Drawn("limit", state, moves, [confirmation], {**places, "confirmation": confirmation})


def dispute(draw: Draw) -> Drawn:
    """Dispute a payment that is recent enough, or decline."""
    state, customer_id, card_id = _bank(draw)
    places, opening = _identify(state, customer_id)
    payment_id, payment = draw.dice.choice([one for one in state["payments"].items() if one[1]["card_id"] == card_id])
    days, late = draw.settings["days"], draw.dice.random() < 0.6
    age = draw.dice.randint(days + 1, days + 50) if late else draw.dice.randint(1, days - 1)
    time = datetime.strptime(state["session"]["current"]["time"], STAMP)
    payment["date"] = (time - timedelta(days=age)).strftime(DAY)
    places |= {
        "digits": state["cards"][card_id]["last_digits"], "merchant": payment["merchant"], "date": payment["date"],
        "age": age, "days": days, "amount": draw.money(payment["amount"]),
    }  # fmt: skip
    opening += [
        move("look", call("list_cards", customer_id=customer_id)),
        move("look", call("list_payments", card_id=card_id)),
    ]
    disputed = call("dispute_payment", payment_id=payment_id)
    if late:
        case = code("CASE", payment_id, 4)
        moves = [*opening, move("crux", call("decline_request", subject=payment_id, rule=4))]
        return Drawn(
            "dispute_late", state, moves, [case, payment["date"]], {**places, "case": case}, [forbid(disputed)]
        )
    number = code("DIS", payment_id)
    facts = [number, payment["date"]]
    return Drawn("dispute", state, [*opening, move("crux", disputed)], facts, {**places, "dispute": number})


def settings(dice: Random) -> dict[str, int]:
    return {"factor": dice.choice([2, 3]), "days": dice.choice([30, 60, 90])}


CARDS = Domain(
    "cards",
    TABLES,
    (
        verify_tool("verify_customer", "customers", "customer", "code"),
        Tool("get_customer", "Name and tier of a customer.", {"customer_id": TEXT}, get_customer),
        Tool("list_cards", "Cards of a customer.", {"customer_id": TEXT}, list_cards),
        Tool("list_payments", "Payments with a card.", {"card_id": TEXT}, list_payments),
        Tool("block_card", "Block a card for good.", {"card_id": TEXT, "reason": REASON}, block_card),
        Tool(
            "order_replacement", "Order a new card for a blocked one.", {"card_id": TEXT, "delivery": DELIVERY},
            order_replacement,
        ),
        Tool("set_limit", "Set the monthly limit of a card.", {"card_id": TEXT, "limit": AMOUNT}, set_limit),
        Tool("dispute_payment", "Contest a payment.", {"payment_id": TEXT}, dispute_payment),
    ),
    {"lost": lost, "limit": limit, "dispute": dispute},
    settings,
    order=(
        Order(
            "verify_customer", ("block_card", "order_replacement", "set_limit", "dispute_payment", "decline_request")
        ),
    ),
)  # fmt: skip
