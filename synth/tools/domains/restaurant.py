"""Orders at a restaurant: dishes that may be sold out, what a guest must not eat, vouchers, and calling an order off.

Rules (texts/): 1 nothing that contains what the guest must not eat; 2 a voucher counts from `minimum` (units of money)
on, otherwise the order is placed without it; 3 an order can be cancelled until the kitchen cooks it. Whether a dish is
sold out shows when it is added.
"""

from __future__ import annotations

from random import Random
from typing import Any

from synth.tools.domain import (
    AMOUNT,
    COUNT,
    FLAG,
    TEXT,
    Domain,
    Draw,
    Drawn,
    call,
    choice,
    code,
    forbid,
    move,
    record,
)
from synth.tools.environment import State, Tool, ToolError

ALLERGENS = ("nuts", "milk", "egg", "fish", "gluten", "soy")
LINE = {
    "type": "object", "properties": {"dish_id": TEXT, "quantity": COUNT}, "required": ["dish_id", "quantity"],
    "additionalProperties": False,
}  # fmt: skip
TABLES = {
    "dishes": {
        "name": TEXT, "price": AMOUNT, "contains": {"type": "array", "items": choice(*ALLERGENS)}, "sold_out": FLAG,
    },
    "vouchers": {"percent": COUNT},
    "orders": {
        "guest": TEXT, "lines": {"type": "array", "items": LINE}, "voucher": {"type": ["string", "null"]},
        "status": choice("open", "placed", "cooking", "cancelled"),
    },
}  # fmt: skip


def list_menu(state: State) -> Any:
    return [
        {"dish_id": key, "name": dish["name"], "price": dish["price"], "contains": dish["contains"]}
        for key, dish in state["dishes"].items()
    ]


def find_orders(state: State, guest: str) -> Any:
    found = [{"order_id": key, **one} for key, one in state["orders"].items() if one["guest"] == guest]
    if not found:
        raise ToolError("not_found", f"no order of `{guest}`")
    return found


def open_order(state: State, guest: str) -> Any:
    key = code("ORD", guest)
    state["orders"][key] = {"guest": guest, "lines": [], "voucher": None, "status": "open"}
    return {"order_id": key}


def _open(state: State, order_id: str) -> dict[str, Any]:
    order = record(state, "orders", order_id, "order")
    if order["status"] != "open":
        raise ToolError("not_open", f"order {order_id} is {order['status']}")
    return order


def add_dish(state: State, order_id: str, dish_id: str, quantity: int) -> Any:
    order, dish = _open(state, order_id), record(state, "dishes", dish_id, "dish")
    if dish["sold_out"]:
        raise ToolError("sold_out", f"{dish['name']} is sold out")
    lines = [*order["lines"], {"dish_id": dish_id, "quantity": quantity}]
    order["lines"] = sorted(lines, key=lambda line: line["dish_id"])
    return {"order_id": order_id, "total": _total(state, order)}


def _total(state: State, order: dict[str, Any]) -> int:
    total = sum(state["dishes"][line["dish_id"]]["price"] * line["quantity"] for line in order["lines"])
    percent = state["vouchers"][order["voucher"]]["percent"] if order["voucher"] else 0
    return int(total * (100 - percent) // 100)


def apply_voucher(state: State, order_id: str, voucher: str) -> Any:
    order = _open(state, order_id)
    record(state, "vouchers", voucher, "voucher")
    order["voucher"] = voucher
    return {"order_id": order_id, "total": _total(state, order)}


def place_order(state: State, order_id: str) -> Any:
    order = _open(state, order_id)
    if not order["lines"]:
        raise ToolError("empty", f"order {order_id} has no dishes")
    order["status"] = "placed"
    return {"order_id": order_id, "total": _total(state, order)}


def cancel_order(state: State, order_id: str) -> Any:
    record(state, "orders", order_id, "order")["status"] = "cancelled"
    return {"order_id": order_id, "confirmation": code("OFF", order_id)}


def _kitchen(draw: Draw) -> State:
    prices = draw.dice.sample(range(6, 30), 8)
    dishes = {
        draw.key("D"): {
            "name": name, "price": price * draw.money_unit, "sold_out": False,
            "contains": sorted(draw.dice.sample(ALLERGENS, draw.dice.randint(0, 2))),
        }
        for name, price in zip(draw.things("dishes", 8), prices, strict=True)
    }  # fmt: skip
    vouchers = {draw.key("V"): {"percent": draw.dice.choice([10, 15, 20])} for _ in range(2)}
    return {"dishes": dishes, "vouchers": vouchers, "orders": {}, "session": draw.session(draw.time())}


def _price(state: State, dish_id: str) -> int:
    return int(state["dishes"][dish_id]["price"])


def dinner(draw: Draw) -> Drawn:
    """Two dishes with a second wish for one, and a voucher that may count or not."""
    state = _kitchen(draw)
    (guest,) = draw.names(1)
    first, second, third = draw.dice.sample(list(state["dishes"]), 3)
    one, two = draw.dice.randint(1, 3), draw.dice.randint(1, 3)
    gone = state["dishes"][second]["sold_out"] = draw.dice.random() < 0.6
    got = third if gone else second
    total = _price(state, first) * one + _price(state, got) * two
    minimum = draw.settings["minimum"] * draw.money_unit
    voucher, counts = draw.dice.choice(list(state["vouchers"])), total >= minimum
    order_id = code("ORD", guest)
    percent = state["vouchers"][voucher]["percent"]
    to_pay = total * (100 - percent) // 100 if counts else total
    reduced = call("apply_voucher", order_id=order_id, voucher=voucher)
    moves = [
        move("look", call("list_menu")),
        move("act", call("open_order", guest=guest)),
        move("crux", call("add_dish", order_id=order_id, dish_id=first, quantity=one)),
        move("act", call("add_dish", order_id=order_id, dish_id=second, quantity=two)),
        *([move("again", call("add_dish", order_id=order_id, dish_id=third, quantity=two))] if gone else []),
        *([move("act", reduced)] if counts else []),
        move("act", call("place_order", order_id=order_id)),
    ]
    names = {key: state["dishes"][key]["name"] for key in (first, second, third)}
    places = {
        "guest": guest, "one": one, "two": two, "first": names[first], "second": names[second],
        "third": names[third], "voucher": voucher, "order": order_id, "total": draw.money(to_pay), "got": names[got],
        "sum": draw.money(total),
    }  # fmt: skip
    never = [] if counts else [forbid(reduced)]
    return Drawn("dinner" if counts else "dinner_full_price", state, moves, [order_id, str(to_pay)], places, never)


def allergy(draw: Draw) -> Drawn:
    """Of two dishes the one that the guest may eat."""
    state = _kitchen(draw)
    (guest,) = draw.names(1)
    allergen = draw.dice.choice(ALLERGENS)
    good, bad, fine = draw.dice.sample(list(state["dishes"]), 3)
    for key in (good, fine):
        state["dishes"][key]["contains"] = [one for one in state["dishes"][key]["contains"] if one != allergen]
    state["dishes"][bad]["contains"] = sorted({*state["dishes"][bad]["contains"], allergen})
    quantity = draw.dice.randint(1, 4)
    order_id, total = code("ORD", guest), (_price(state, good) + _price(state, fine)) * quantity
    names = {key: state["dishes"][key]["name"] for key in (good, bad, fine)}
    either = draw.dice.sample([names[good], names[bad]], 2)
    moves = [
        move("look", call("list_menu")),
        move("act", call("open_order", guest=guest)),
        move("crux", *(call("add_dish", order_id=order_id, dish_id=key, quantity=quantity) for key in (good, fine))),
        move("act", call("place_order", order_id=order_id)),
    ]
    places = {
        "guest": guest, "allergen": draw.words["allergens"][allergen], "either": either[0], "or": either[1],
        "fine": names[fine], "quantity": quantity, "good": names[good], "bad": names[bad], "order": order_id,
        "total": draw.money(total),
    }  # fmt: skip
    never = [forbid(call("add_dish", order_id=order_id, dish_id=bad, quantity=1), "dish_id")]
    return Drawn("allergy", state, moves, [order_id, str(total)], places, never)


def cancel(draw: Draw) -> Drawn:
    """Call an order off, unless it is being cooked."""
    state = _kitchen(draw)
    guest, other = draw.names(2)
    cooking = draw.dice.random() < 0.6
    orders: list[str] = []
    for name, status in ((guest, "cooking" if cooking else "placed"), (other, "placed")):
        lines = [
            {"dish_id": key, "quantity": draw.dice.randint(1, 3)}
            for key in sorted(draw.dice.sample(list(state["dishes"]), 2))
        ]
        orders.append(draw.key("ORD"))
        state["orders"][orders[-1]] = {"guest": name, "lines": lines, "voucher": None, "status": status}
    order_id = orders[0]
    look, off = move("look", call("find_orders", guest=guest)), call("cancel_order", order_id=order_id)
    if cooking:
        case = code("CASE", order_id, 3)
        moves = [look, move("crux", call("decline_request", subject=order_id, rule=3))]
        facts, never = [case, order_id], [forbid(off)]
        return Drawn("cancel_declined", state, moves, facts, {"guest": guest, "order": order_id, "case": case}, never)
    number = code("OFF", order_id)
    places = {"guest": guest, "order": order_id, "number": number}
    return Drawn("cancel", state, [look, move("crux", off)], [number, order_id], places)


def settings(dice: Random) -> dict[str, int]:
    return {"minimum": dice.choice([30, 40, 50, 60])}


RESTAURANT = Domain(
    "restaurant",
    TABLES,
    (
        Tool("list_menu", "All dishes with price and what they contain.", {}, list_menu),
        Tool("find_orders", "Orders of a guest.", {"guest": TEXT}, find_orders),
        Tool("open_order", "Begin an order.", {"guest": TEXT}, open_order),
        Tool(
            "add_dish", "Add a dish to an open order; fails if it is sold out.",
            {"order_id": TEXT, "dish_id": TEXT, "quantity": COUNT}, add_dish,
        ),
        Tool("apply_voucher", "Use a voucher for an open order.", {"order_id": TEXT, "voucher": TEXT}, apply_voucher),
        Tool("place_order", "Send an open order to the kitchen.", {"order_id": TEXT}, place_order),
        Tool("cancel_order", "Cancel an order.", {"order_id": TEXT}, cancel_order),
    ),
    {"dinner": dinner, "allergy": allergy, "cancel": cancel},
    settings,
)  # fmt: skip
