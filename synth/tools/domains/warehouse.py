"""A warehouse: sending an order out with what must be bought again, holding one back, and entering a count.

Rules (texts/): 1 look at every line first and decline the whole order when one line is not covered; 2 reserve every
line, then ship; 3 what falls below its minimum is bought again, in as few packs as reach the minimum; 4 enter a count
only where it differs.
"""

from __future__ import annotations

from random import Random
from typing import Any

from synth.tools.domain import (
    AMOUNT,
    COUNT,
    TEXT,
    Domain,
    Draw,
    Drawn,
    call,
    choice,
    code,
    forbid,
    listed,
    move,
    record,
)
from synth.tools.environment import State, Tool, ToolError

LINE = {
    "type": "object", "properties": {"sku": TEXT, "quantity": COUNT}, "required": ["sku", "quantity"],
    "additionalProperties": False,
}  # fmt: skip
TABLES = {
    "items": {"name": TEXT, "stock": AMOUNT, "minimum": AMOUNT, "pack": COUNT},
    "orders": {
        "customer": TEXT, "lines": listed(LINE), "reserved": {"type": "array", "items": TEXT},
        "status": choice("open", "shipped"),
    },
    "purchases": {"sku": TEXT, "packs": COUNT},
}  # fmt: skip


def get_order(state: State, order_id: str) -> Any:
    return {"order_id": order_id, **record(state, "orders", order_id, "order")}


def get_item(state: State, sku: str) -> Any:
    return {"sku": sku, **record(state, "items", sku, "item")}


def find_item(state: State, name: str) -> Any:
    found = [{"sku": key, **item} for key, item in state["items"].items() if name.casefold() in item["name"].casefold()]
    if not found:
        raise ToolError("not_found", f"no item with `{name}` in its name")
    return found


def reserve_line(state: State, order_id: str, sku: str) -> Any:
    order, item = record(state, "orders", order_id, "order"), record(state, "items", sku, "item")
    line = next((line for line in order["lines"] if line["sku"] == sku), None)
    if line is None:
        raise ToolError("not_in_order", f"{sku} is not in {order_id}")
    if sku in order["reserved"]:
        raise ToolError("already_reserved", f"{sku} is reserved for {order_id} already")
    if item["stock"] < line["quantity"]:
        raise ToolError("insufficient_stock", f"{item['stock']} of {sku}, {line['quantity']} needed")
    item["stock"] -= line["quantity"]
    order["reserved"] = sorted([*order["reserved"], sku])
    return {"sku": sku, "stock_left": item["stock"], "minimum": item["minimum"], "pack": item["pack"]}


def order_packs(state: State, sku: str, packs: int) -> Any:
    record(state, "items", sku, "item")
    key = code("PO", sku, packs)
    state["purchases"][key] = {"sku": sku, "packs": packs}
    return {"purchase_id": key}


def set_stock(state: State, sku: str, stock: int) -> Any:
    record(state, "items", sku, "item")["stock"] = stock
    return {"sku": sku, "stock": stock}


def ship_order(state: State, order_id: str) -> Any:
    order = record(state, "orders", order_id, "order")
    missing = [line["sku"] for line in order["lines"] if line["sku"] not in order["reserved"]]
    if missing or order["status"] != "open":
        raise ToolError("not_ready", f"not reserved: {', '.join(missing) or 'nothing'}; status {order['status']}")
    order["status"] = "shipped"
    return {"order_id": order_id, "shipment": code("SHIP", order_id)}


def _packs(short: int, pack: int) -> int:
    return -(-short // pack)


def _stock(draw: Draw) -> State:
    items = {
        draw.key("SKU"): {
            "name": name, "stock": draw.dice.randint(30, 90), "minimum": draw.dice.randint(5, 15),
            "pack": draw.dice.choice([4, 6, 10, 12]),
        }
        for name in draw.things("items", 7)
    }  # fmt: skip
    return {"items": items, "orders": {}, "purchases": {}, "session": draw.session(draw.time())}


def _order(draw: Draw, state: State, skus: list[str]) -> str:
    order_id = draw.key("O")
    lines = [{"sku": sku, "quantity": draw.dice.randint(3, 20)} for sku in skus]
    (customer,) = draw.names(1)
    state["orders"][order_id] = {"customer": customer, "lines": lines, "reserved": [], "status": "open"}
    return order_id


def fulfil(draw: Draw) -> Drawn:
    """Send an order out, and buy again what falls below its minimum; or decline it when a line is not covered."""
    state = _stock(draw)
    skus = draw.dice.sample(list(state["items"]), draw.dice.randint(2, 3))
    order_id = _order(draw, state, skus)
    _order(draw, state, draw.dice.sample(list(state["items"]), 2))
    lines = state["orders"][order_id]["lines"]
    tight = draw.dice.choice(lines)
    item = state["items"][tight["sku"]]
    opening = [
        move("look", call("get_order", order_id=order_id)),
        move("look", *(call("get_item", sku=sku) for sku in skus)),
    ]
    places = {"order": order_id, "tight": item["name"], "quantity": tight["quantity"]}
    reserved = [call("reserve_line", order_id=order_id, sku=sku) for sku in skus]
    if draw.dice.random() < 0.4:
        item["stock"] = tight["quantity"] - draw.dice.randint(1, tight["quantity"] - 1)
        case = code("CASE", order_id, 1)
        moves = [*opening, move("crux", call("decline_request", subject=order_id, rule=1))]
        never = [forbid(one, "sku") for one in reserved if one.arguments["sku"] != tight["sku"]]
        return Drawn(
            "shortage", state, moves, [case, item["name"]], {**places, "case": case, "stock": item["stock"]}, never
        )
    left = draw.dice.randrange(item["minimum"])
    item["stock"] = tight["quantity"] + left
    short = {
        sku: state["items"][sku]["minimum"] - state["items"][sku]["stock"] + line["quantity"]
        for sku, line in zip(skus, lines, strict=True)
    }
    bought = {sku: _packs(short[sku], state["items"][sku]["pack"]) for sku in skus if short[sku] > 0}
    moves = [
        *opening,
        move("crux", *reserved),
        move("buy", *(call("order_packs", sku=sku, packs=packs) for sku, packs in bought.items())),
        move("act", call("ship_order", order_id=order_id)),
    ]
    purchases = [code("PO", sku, packs) for sku, packs in bought.items()]
    shipment = code("SHIP", order_id)
    others = [call("order_packs", sku=sku, packs=1) for sku in state["items"] if sku not in bought]
    told = {**places, "shipment": shipment, "purchases": draw.joined(purchases)}
    return Drawn("fulfil", state, moves, [shipment, *purchases], told, [forbid(one, "sku") for one in others])


def recount(draw: Draw) -> Drawn:
    """Enter what was counted, where it differs, and buy again what is short."""
    state = _stock(draw)
    skus = draw.dice.sample(list(state["items"]), 3)
    same, *changed = skus
    counted = {same: state["items"][same]["stock"]}
    for place, sku in enumerate(changed):
        item = state["items"][sku]
        counted[sku] = draw.dice.randrange(item["minimum"]) if place else item["stock"] - draw.dice.randint(1, 9)
    low = changed[1]
    item = state["items"][low]
    packs = _packs(item["minimum"] - counted[low], item["pack"])
    purchase = code("PO", low, packs)
    shown = sorted(skus)
    moves = [
        move("look", *(call("find_item", name=state["items"][sku]["name"]) for sku in shown)),
        move("crux", *(call("set_stock", sku=sku, stock=counted[sku]) for sku in changed)),
        move("buy", call("order_packs", sku=low, packs=packs)),
    ]
    places = {
        "counts": "\n".join(f"- {state['items'][sku]['name']}: {counted[sku]}" for sku in shown),
        "same": state["items"][same]["name"], "low": item["name"], "purchase": purchase, "packs": packs,
    }  # fmt: skip
    return Drawn("recount", state, moves, [purchase], places)


def settings(dice: Random) -> dict[str, int]:
    del dice
    return {}


WAREHOUSE = Domain(
    "warehouse",
    TABLES,
    (
        Tool("get_order", "An order with its lines.", {"order_id": TEXT}, get_order),
        Tool("get_item", "Stock, minimum and pack size of an item.", {"sku": TEXT}, get_item),
        Tool("find_item", "Items whose name contains a text.", {"name": TEXT}, find_item),
        Tool("reserve_line", "Take a line of an order from the stock.", {"order_id": TEXT, "sku": TEXT}, reserve_line),
        Tool("order_packs", "Buy packs of an item.", {"sku": TEXT, "packs": COUNT}, order_packs),
        Tool("set_stock", "Enter a counted stock.", {"sku": TEXT, "stock": AMOUNT}, set_stock),
        Tool("ship_order", "Send out an order whose lines are all reserved.", {"order_id": TEXT}, ship_order),
    ),
    {"fulfil": fulfil, "recount": recount},
    settings,
)
