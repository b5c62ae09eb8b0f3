"""A lending library: renewing what may be renewed, and holding a book that is out.

Rules (texts/): 1 confirm the member; 2 at most `renewals` renewals, and none while another member holds the book;
3 fees above `fees` (units of money) stop holds; 4 a renewal is `days` days.
"""

from __future__ import annotations

from datetime import date, timedelta
from random import Random
from typing import Any

from synth.tools.domain import (
    AMOUNT,
    COUNT,
    DATE,
    DAY,
    TEXT,
    Domain,
    Draw,
    Drawn,
    call,
    code,
    forbid,
    move,
    record,
    verify_tool,
)
from synth.tools.environment import Order, State, Tool, ToolError

TABLES = {
    "members": {"name": TEXT, "pin": TEXT, "fees": AMOUNT},
    "books": {"title": TEXT, "free_copies": AMOUNT},
    "loans": {"member_id": TEXT, "book_id": TEXT, "due": DATE, "renewals": AMOUNT},
    "holds": {"member_id": TEXT, "book_id": TEXT},
}


def search_books(state: State, title: str) -> Any:
    wanted = title.casefold()
    found = [
        {"book_id": key, **book, "holds": sum(hold["book_id"] == key for hold in state["holds"].values())}
        for key, book in state["books"].items()
        if wanted in book["title"].casefold()
    ]
    if not found:
        raise ToolError("not_found", f"no book with `{title}` in its title")
    return found


def get_account(state: State, member_id: str) -> Any:
    member = record(state, "members", member_id, "member")
    holds = [key for key, hold in state["holds"].items() if hold["member_id"] == member_id]
    return {"name": member["name"], "fees": member["fees"], "holds": holds}


def list_loans(state: State, member_id: str) -> Any:
    record(state, "members", member_id, "member")
    return [
        {
            "loan_id": key,
            "title": state["books"][loan["book_id"]]["title"],
            "due": loan["due"],
            "renewals": loan["renewals"],
            "held_by_others": any(
                hold["book_id"] == loan["book_id"] and hold["member_id"] != member_id
                for hold in state["holds"].values()
            ),
        }
        for key, loan in state["loans"].items()
        if loan["member_id"] == member_id
    ]


def renew_loan(state: State, loan_id: str, days: int) -> Any:
    loan = record(state, "loans", loan_id, "loan")
    loan["due"] = (date.fromisoformat(loan["due"]) + timedelta(days=days)).isoformat()
    loan["renewals"] += 1
    return {"loan_id": loan_id, "due": loan["due"]}


def place_hold(state: State, member_id: str, book_id: str) -> Any:
    record(state, "members", member_id, "member")
    if record(state, "books", book_id, "book")["free_copies"]:
        raise ToolError("available", "a copy is on the shelf; only books that are out can be held")
    key = code("HOLD", member_id, book_id)
    state["holds"][key] = {"member_id": member_id, "book_id": book_id}
    return {"hold_id": key}


def _shelf(draw: Draw) -> State:
    """Members, books and loans of other people; the first member is the one who asks."""
    names, titles = draw.names(4), draw.things("titles", 8)
    members = {
        draw.key("M"): {"name": name, "pin": draw.digits(4), "fees": draw.amount(0, draw.settings["fees"])}
        for name in names
    }
    books = {draw.key("B"): {"title": title, "free_copies": draw.dice.randint(0, 3)} for title in titles}
    return {"members": members, "books": books, "loans": {}, "holds": {}, "session": draw.session(draw.time())}


def renew(draw: Draw) -> Drawn:
    """Renew all that may be renewed of three to five loans."""
    state = _shelf(draw)
    (member, other), books = list(state["members"])[:2], list(state["books"])
    member_id, other_id = member, other
    today = date.fromisoformat(state["session"]["current"]["time"][:10])
    limit, days = draw.settings["renewals"], draw.settings["days"]
    count = draw.dice.randint(3, 5)
    blocked = set(draw.dice.sample(range(count), draw.dice.randint(1, count - 2)))
    offsets = draw.dice.sample(range(1, 15), count)
    renewed: list[tuple[str, str, str]] = []  # loan, title, new date
    kept: list[tuple[str, str]] = []
    for place, book_id in enumerate(books[:count]):
        loan_id, due = draw.key("L"), today + timedelta(days=offsets[place])
        renewals = draw.dice.randrange(limit)
        if place in blocked and draw.dice.random() < 0.5:
            renewals = limit
        elif place in blocked:
            state["holds"][code("HOLD", other_id, book_id)] = {"member_id": other_id, "book_id": book_id}
        loan = {"member_id": member_id, "book_id": book_id, "due": due.strftime(DAY), "renewals": renewals}
        state["loans"][loan_id] = loan
        title = state["books"][book_id]["title"]
        if place in blocked:
            kept.append((loan_id, title))
        else:
            renewed.append((loan_id, title, (due + timedelta(days=days)).strftime(DAY)))
    state["loans"][draw.key("L")] = {
        "member_id": other_id, "book_id": books[-1], "due": (today + timedelta(days=3)).strftime(DAY), "renewals": 0,
    }  # fmt: skip
    pin = state["members"][member_id]["pin"]
    return Drawn(
        "renew",
        state,
        [
            move("identify", call("verify_member", member_id=member_id, pin=pin)),
            move("look", call("list_loans", member_id=member_id)),
            move("crux", *(call("renew_loan", loan_id=loan, days=days) for loan, _, _ in renewed)),
        ],
        [due for _, _, due in renewed],
        {
            "member": member_id,
            "pin": pin,
            "good": draw.joined(loan for loan, _, _ in renewed),
            "bad": draw.joined(loan for loan, _ in kept),
            "dates": "\n".join(f"- {title}: {due}" for _, title, due in renewed),
            "kept": "\n".join(f"- {title}" for _, title in kept),
        },
        [forbid(call("renew_loan", loan_id=loan, days=days), "loan_id") for loan, _ in kept],
    )


def hold(draw: Draw) -> Drawn:
    """Hold a book that is out, unless the member owes too much."""
    state = _shelf(draw)
    member_id, book_id = next(iter(state["members"])), draw.dice.choice(list(state["books"]))
    member, book = state["members"][member_id], state["books"][book_id]
    book["free_copies"] = 0
    limit = draw.settings["fees"] * draw.money_unit
    owes_too_much = draw.dice.random() < 0.4
    if owes_too_much:
        member["fees"] = limit + draw.amount(1, 30)
    places = {"member": member_id, "pin": member["pin"], "title": book["title"], "fees": draw.money(member["fees"])}
    opening = [
        move("identify", call("verify_member", member_id=member_id, pin=member["pin"])),
        move("look", call("get_account", member_id=member_id), call("search_books", title=book["title"])),
    ]
    placed = call("place_hold", member_id=member_id, book_id=book_id)
    if owes_too_much:
        case = code("CASE", book_id, 3)
        moves = [*opening, move("crux", call("decline_request", subject=book_id, rule=3))]
        facts = [case, str(member["fees"])]
        return Drawn("hold_declined", state, moves, facts, {**places, "case": case}, [forbid(placed)])
    hold_id = code("HOLD", member_id, book_id)
    return Drawn("hold", state, [*opening, move("crux", placed)], [hold_id], {**places, "hold": hold_id})


def settings(dice: Random) -> dict[str, int]:
    return {"renewals": dice.randint(2, 4), "fees": dice.randint(8, 25), "days": dice.choice([14, 21, 28])}


LIBRARY = Domain(
    "library",
    TABLES,
    (
        verify_tool("verify_member", "members", "member", "pin"),
        Tool("search_books", "Books whose title contains a text.", {"title": TEXT}, search_books),
        Tool("get_account", "Fees and holds of a member.", {"member_id": TEXT}, get_account),
        Tool("list_loans", "What a member has borrowed.", {"member_id": TEXT}, list_loans),
        Tool("renew_loan", "Lengthen a loan by some days.", {"loan_id": TEXT, "days": COUNT}, renew_loan),
        Tool("place_hold", "Put a member in line for a book.", {"member_id": TEXT, "book_id": TEXT}, place_hold),
    ),
    {"renew": renew, "hold": hold},
    settings,
    order=(Order("verify_member", ("renew_loan", "place_hold", "decline_request")),),
)
