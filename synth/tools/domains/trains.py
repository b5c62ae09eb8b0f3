"""Train bookings: giving one back for the right refund, and changing to the earliest train with enough seats.

Rules (texts/): 1 confirm the booking; 2 nothing after departure; 3 the refund is `full` percent more than `hours` hours
before departure and `part` percent after that; 4 change to the earliest train at or after the wished time that has
seats for all.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any

from synth.tools.domain import (
    AMOUNT,
    COUNT,
    DATE,
    DAY,
    MOMENT,
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

PERCENT = {"type": "integer", "minimum": 0, "maximum": 100}
TABLES = {
    "trains": {"origin": TEXT, "destination": TEXT, "departs": MOMENT, "free_seats": AMOUNT},
    "bookings": {
        "name": TEXT, "code": TEXT, "train_id": TEXT, "seats": COUNT, "paid": AMOUNT,
        "status": choice("booked", "cancelled"), "refund_percent": AMOUNT,
    },
}  # fmt: skip


def get_booking(state: State, booking_id: str) -> Any:
    booking = record(state, "bookings", booking_id, "booking")
    train = state["trains"][booking["train_id"]]
    shown = {name: value for name, value in booking.items() if name != "code"}
    return {**shown, "origin": train["origin"], "destination": train["destination"], "departs": train["departs"]}


def search_trains(state: State, origin: str, destination: str, date: str) -> Any:
    found = [
        {"train_id": key, "departs": train["departs"], "free_seats": train["free_seats"]}
        for key, train in state["trains"].items()
        if (train["origin"], train["destination"]) == (origin, destination) and train["departs"].startswith(date)
    ]
    if not found:
        raise ToolError("not_found", f"no train from `{origin}` to `{destination}` on {date}")
    return sorted(found, key=lambda train: train["departs"])


def _booked(state: State, booking_id: str) -> dict[str, Any]:
    booking = record(state, "bookings", booking_id, "booking")
    if booking["status"] != "booked":
        raise ToolError("cancelled", f"booking {booking_id} is cancelled")
    return booking


def change_train(state: State, booking_id: str, train_id: str) -> Any:
    booking, train = _booked(state, booking_id), record(state, "trains", train_id, "train")
    if train["free_seats"] < booking["seats"]:
        raise ToolError("sold_out", f"{train['free_seats']} free seats in {train_id}, {booking['seats']} needed")
    state["trains"][booking["train_id"]]["free_seats"] += booking["seats"]
    train["free_seats"] -= booking["seats"]
    booking["train_id"] = train_id
    return {"booking_id": booking_id, "departs": train["departs"], "ticket": code("T", booking_id, train_id)}


def cancel_booking(state: State, booking_id: str, refund_percent: int) -> Any:
    booking = _booked(state, booking_id)
    booking["status"] = "cancelled"
    booking["refund_percent"] = refund_percent
    state["trains"][booking["train_id"]]["free_seats"] += booking["seats"]
    return {"booking_id": booking_id, "refunded": booking["paid"] * refund_percent // 100}


def _network(draw: Draw, departs: datetime) -> tuple[State, str, dict[str, Any]]:
    """(state, booking, train) of a party whose train leaves at a time."""
    time = draw.time()
    origin, destination, elsewhere = draw.things("stations", 3)
    trains = {
        draw.key("TR"): {
            "origin": origin, "destination": draw.dice.choice([destination, elsewhere]),
            "departs": (draw.workday(time, 1) + timedelta(hours=hour, minutes=10)).strftime(STAMP),
            "free_seats": draw.dice.randint(0, 60),
        }
        for hour in (7, 9)
    }  # fmt: skip
    own = draw.key("TR")
    trains[own] = {
        "origin": origin, "destination": destination, "departs": departs.strftime(STAMP),
        "free_seats": draw.dice.randint(0, 40),
    }  # fmt: skip
    bookings: dict[str, dict[str, Any]] = {}
    for name in draw.names(3):
        seats = draw.dice.randint(1, 5)
        bookings[draw.key("BK")] = {
            "name": name, "code": draw.digits(6), "train_id": own, "seats": seats,
            "paid": 20 * seats * draw.amount(1, 12), "status": "booked", "refund_percent": 0,
        }  # fmt: skip
    state = {"trains": trains, "bookings": bookings, "session": draw.session(time)}
    return state, draw.dice.choice(list(bookings)), trains[own]


def _identify(state: State, booking_id: str) -> list[Move]:
    secret = state["bookings"][booking_id]["code"]
    return [
        move("identify", call("verify_booking", booking_id=booking_id, code=secret)),
        move("look", call("get_booking", booking_id=booking_id)),
    ]


def refund(draw: Draw) -> Drawn:
    """Give a booking back: for one of two refunds, or not at all once the train has left."""
    state, booking_id, train = _network(draw, draw.time())
    booking = state["bookings"][booking_id]
    time = datetime.strptime(state["session"]["current"]["time"], STAMP)
    hours, early = draw.settings["hours"], draw.dice.random() < 0.5
    gone = draw.dice.random() < 0.35
    ahead = draw.dice.randint(hours + 1, hours + 40) if early else draw.dice.randint(1, hours - 1)
    departs = time - timedelta(minutes=5 * draw.dice.randint(2, 60)) if gone else time + timedelta(hours=ahead)
    train["departs"] = departs.strftime(STAMP)
    percent = draw.settings["full" if early else "part"]
    places = {
        "booking": booking_id, "code": booking["code"], "departs": train["departs"], "percent": percent,
        "refund": draw.money(booking["paid"] * percent // 100),
    }  # fmt: skip
    opening = _identify(state, booking_id)
    cancelled = call("cancel_booking", booking_id=booking_id, refund_percent=percent)
    if gone:
        case = code("CASE", booking_id, 2)
        moves = [*opening, move("crux", call("decline_request", subject=booking_id, rule=2))]
        return Drawn("departed", state, moves, [case, train["departs"]], {**places, "case": case}, [forbid(cancelled)])
    amount = str(booking["paid"] * percent // 100)
    return Drawn("refund", state, [*opening, move("crux", cancelled)], [amount], places)


def change(draw: Draw) -> Drawn:
    """Change to the earliest train of another day that has seats for the whole party."""
    state, booking_id, train = _network(draw, draw.time())
    booking = state["bookings"][booking_id]
    time = datetime.strptime(state["session"]["current"]["time"], STAMP)
    train["departs"] = (time + timedelta(hours=draw.dice.randint(2, 30))).strftime(STAMP)
    day = draw.workday(time, draw.dice.randint(2, 4))
    after = draw.dice.randint(9, 13)
    seats = booking["seats"]
    hours = sorted(draw.dice.sample(range(after, 22), 4))
    first_fit = draw.dice.randrange(1, 4)
    earlier = {"departs": day + timedelta(hours=after - 2, minutes=40), "free_seats": seats + 9}
    chosen = ""
    for place, row in enumerate([earlier, *({"departs": day + timedelta(hours=hour, minutes=20)} for hour in hours)]):
        key = draw.key("TR")
        free = draw.dice.randrange(seats) if 0 < place <= first_fit else seats + draw.dice.randint(0, 30)
        state["trains"][key] = {
            "origin": train["origin"], "destination": train["destination"],
            "departs": row["departs"].strftime(STAMP), "free_seats": free,
        }  # fmt: skip
        if place == first_fit + 1:
            chosen = key
    new = state["trains"][chosen]["departs"]
    date = day.strftime(DAY)
    found = call("search_trains", origin=train["origin"], destination=train["destination"], date=date)
    moves = [
        *_identify(state, booking_id),
        move("look", found),
        move("crux", call("change_train", booking_id=booking_id, train_id=chosen)),
    ]
    places = {
        "booking": booking_id, "code": booking["code"], "day": date, "after": f"{after:02}:00", "seats": seats,
        "new": new, "train": chosen, "ticket": code("T", booking_id, chosen),
    }  # fmt: skip
    return Drawn("change", state, moves, [new, places["ticket"]], places)


def settings(dice: Random) -> dict[str, int]:
    return {"hours": dice.choice([12, 24, 48]), "full": dice.choice([80, 90, 100]), "part": dice.choice([25, 40, 50])}


TRAINS = Domain(
    "trains",
    TABLES,
    (
        verify_tool("verify_booking", "bookings", "booking", "code"),
        Tool("get_booking", "A booking with its train.", {"booking_id": TEXT}, get_booking),
        Tool(
            "search_trains", "Trains of a day, earliest first.", {"origin": TEXT, "destination": TEXT, "date": DATE},
            search_trains,
        ),
        Tool("change_train", "Move a booking to another train.", {"booking_id": TEXT, "train_id": TEXT}, change_train),
        Tool(
            "cancel_booking", "Cancel a booking and pay back a share of the price.",
            {"booking_id": TEXT, "refund_percent": PERCENT}, cancel_booking,
        ),
    ),
    {"refund": refund, "change": change},
    settings,
    order=(Order("verify_booking", ("change_train", "cancel_booking", "decline_request")),),
)  # fmt: skip
