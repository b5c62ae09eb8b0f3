"""Meeting rooms: an hour when all can come in the smallest room that will do, and a meeting that is called off.

Rules (texts/): 1 meetings last an hour and begin on the hour from 09:00 to 16:00, not at `lunch`:00; 2 the earliest
hour when all are free, in the smallest free room with enough seats; 3 only its organiser may cancel a meeting.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any

from synth.tools.domain import (
    COUNT,
    DATE,
    DAY,
    MOMENT,
    STAMP,
    TEXT,
    Domain,
    Draw,
    Drawn,
    call,
    code,
    forbid,
    listed,
    move,
    record,
)
from synth.tools.environment import State, Tool, ToolError

HOURS = range(9, 17)
TABLES = {
    "people": {"name": TEXT},
    "rooms": {"name": TEXT, "seats": COUNT},
    "meetings": {"room_id": TEXT, "organiser": TEXT, "attendees": listed(TEXT), "start": MOMENT},
}


def find_person(state: State, name: str) -> Any:
    found = [{"person_id": key, **one} for key, one in state["people"].items() if one["name"] == name]
    if not found:
        raise ToolError("not_found", f"nobody is named `{name}`")
    return found


def list_rooms(state: State, seats: int) -> Any:
    return [{"room_id": key, **room} for key, room in state["rooms"].items() if room["seats"] >= seats]


def list_meetings(state: State, date: str) -> Any:
    found = [{"meeting_id": key, **one} for key, one in state["meetings"].items() if one["start"].startswith(date)]
    return sorted(found, key=lambda one: one["start"])


def book_room(state: State, room_id: str, organiser: str, attendees: list[str], start: str) -> Any:
    record(state, "rooms", room_id, "room")
    for person_id in (organiser, *attendees):
        record(state, "people", person_id, "person")
    if any(one["room_id"] == room_id and one["start"] == start for one in state["meetings"].values()):
        raise ToolError("occupied", f"room {room_id} is occupied at {start}")
    key = code("MTG", room_id, start)
    state["meetings"][key] = {
        "room_id": room_id, "organiser": organiser, "attendees": sorted(attendees), "start": start,
    }  # fmt: skip
    return {"meeting_id": key}


def cancel_meeting(state: State, meeting_id: str) -> Any:
    record(state, "meetings", meeting_id, "meeting")
    del state["meetings"][meeting_id]
    return {"cancelled": meeting_id, "confirmation": code("OFF", meeting_id)}


def _office(draw: Draw) -> tuple[State, datetime]:
    """(state, day): a day's meetings among eight people in four rooms."""
    time = draw.time()
    day = draw.workday(time, draw.dice.randint(1, 4))
    people = {draw.key("E"): {"name": name} for name in draw.names(8)}
    sizes = sorted(draw.dice.sample(range(2, 15), 4))
    rooms = {
        draw.key("R"): {"name": name, "seats": seats}
        for name, seats in zip(draw.things("rooms", 4), [*sizes[:3], sizes[3] + 6], strict=True)
    }
    meetings: dict[str, dict[str, Any]] = {}
    for hour in HOURS:
        if hour == draw.settings["lunch"]:
            continue
        free = list(people)
        draw.dice.shuffle(free)
        for room_id in draw.dice.sample(list(rooms), draw.dice.randint(1, 2)):
            organiser, *others = (free.pop() for _ in range(draw.dice.randint(2, 3)))
            start = (day + timedelta(hours=hour)).strftime(STAMP)
            meetings[draw.key("MTG")] = {
                "room_id": room_id, "organiser": organiser, "attendees": sorted(others), "start": start,
            }  # fmt: skip
    return {"people": people, "rooms": rooms, "meetings": meetings, "session": draw.session(time)}, day


def _place(state: State, day: datetime, wanted: set[str], lunch: int) -> tuple[str, str] | None:
    """(room, start) of the earliest hour when all are free, in the smallest free room."""
    for hour in HOURS:
        start = (day + timedelta(hours=hour)).strftime(STAMP)
        now = [one for one in state["meetings"].values() if one["start"] == start]
        busy = {person for one in now for person in (one["organiser"], *one["attendees"])}
        taken = {one["room_id"] for one in now}
        fit = [
            (room["seats"], key)
            for key, room in state["rooms"].items()
            if key not in taken and room["seats"] >= len(wanted)
        ]
        if hour != lunch and not busy & wanted and fit:
            return min(fit)[1], start
    return None


def common(draw: Draw) -> Drawn:
    """An hour for three or four people."""
    state, day = _office(draw)
    people = list(state["people"])
    while True:
        organiser, *others = draw.dice.sample(people, draw.dice.randint(3, 4))
        found = _place(state, day, {organiser, *others}, draw.settings["lunch"])
        if found is not None:
            break
        del state["meetings"][draw.dice.choice(list(state["meetings"]))]
    room_id, start = found
    names = [state["people"][key]["name"] for key in others]
    date = day.strftime(DAY)
    booked = call("book_room", room_id=room_id, organiser=organiser, attendees=sorted(others), start=start)
    moves = [
        move("look", *(call("find_person", name=name) for name in names)),
        move("look", call("list_meetings", date=date), call("list_rooms", seats=len(others) + 1)),
        move("crux", booked),
    ]
    number, room = code("MTG", room_id, start), state["rooms"][room_id]["name"]
    me = state["people"][organiser]["name"]
    places = {
        "me": me, "my_id": organiser, "names": draw.joined(names), "day": date, "room": room, "start": start,
        "number": number,
    }  # fmt: skip
    return Drawn("common", state, moves, [number, room, start], places)


def cancel(draw: Draw) -> Drawn:
    """Call off a meeting: one's own, or somebody else's."""
    state, day = _office(draw)
    meeting_id, meeting = draw.dice.choice(list(state["meetings"].items()))
    own = draw.dice.random() < 0.4
    me = meeting["organiser"] if own else draw.dice.choice(meeting["attendees"])
    organiser = state["people"][meeting["organiser"]]["name"]
    places = {
        "me": state["people"][me]["name"], "my_id": me, "start": meeting["start"], "organiser": organiser,
        "room": state["rooms"][meeting["room_id"]]["name"],
    }  # fmt: skip
    look = [
        move("look", call("list_meetings", date=day.strftime(DAY)), call("list_rooms", seats=1)),
    ]
    off = call("cancel_meeting", meeting_id=meeting_id)
    if own:
        number = code("OFF", meeting_id)
        return Drawn("cancel", state, [*look, move("crux", off)], [number], {**places, "number": number})
    case = code("CASE", meeting_id, 3)
    moves = [*look, move("crux", call("decline_request", subject=meeting_id, rule=3))]
    return Drawn("cancel_declined", state, moves, [case], {**places, "case": case}, [forbid(off)])


def settings(dice: Random) -> dict[str, int]:
    return {"lunch": dice.choice([12, 13])}


MEETINGS = Domain(
    "meetings",
    TABLES,
    (
        Tool("find_person", "People of a name.", {"name": TEXT}, find_person),
        Tool("list_rooms", "Rooms with at least so many seats.", {"seats": COUNT}, list_rooms),
        Tool("list_meetings", "All meetings of a day.", {"date": DATE}, list_meetings),
        Tool(
            "book_room", "Book a room for an hour; attendees without the organiser.",
            {"room_id": TEXT, "organiser": TEXT, "attendees": listed(TEXT), "start": MOMENT}, book_room,
        ),
        Tool("cancel_meeting", "Cancel a meeting.", {"meeting_id": TEXT}, cancel_meeting),
    ),
    {"common": common, "cancel": cancel},
    settings,
)  # fmt: skip
