"""Devices of a home: leaving it with everything off, and timers that must not disturb the night.

Rules (texts/): 1 refrigerator and alarm stay on; 2 no vacuum cleaner or washing machine from `night`:00 to 07:00; 3 the
heating stands at `coldest` to `warmest` degrees; 4 a device that is offline is restarted once, then tried again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any

from synth.tools.domain import (
    AMOUNT,
    FLAG,
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
)
from synth.tools.environment import Call, State, Tool, ToolError

LOUD = ("vacuum", "washer")
KINDS = ("light", "heating", "fridge", "alarm", *LOUD)
TABLES = {
    "devices": {
        "name": TEXT, "room": TEXT, "kind": choice(*KINDS), "on": FLAG, "degrees": AMOUNT, "online": FLAG,
    },
    "timers": {"device_id": TEXT, "at": MOMENT},
}  # fmt: skip


def list_devices(state: State, kind: str) -> Any:
    shown = ("name", "room", "on", "degrees") if kind == "heating" else ("name", "room", "on")
    return [
        {"device_id": key, **{name: device[name] for name in shown}}
        for key, device in state["devices"].items()
        if device["kind"] == kind
    ]


def _online(state: State, device_id: str) -> dict[str, Any]:
    device = record(state, "devices", device_id, "device")
    if not device["online"]:
        raise ToolError("offline", f"device {device_id} does not answer")
    return device


def switch_device(state: State, device_id: str, on: bool) -> Any:
    _online(state, device_id)["on"] = on
    return {"device_id": device_id, "on": on}


def set_heating(state: State, device_id: str, degrees: int) -> Any:
    device = _online(state, device_id)
    if device["kind"] != "heating":
        raise ToolError("no_heating", f"{device_id} is a {device['kind']}")
    device["degrees"] = degrees
    return {"device_id": device_id, "degrees": degrees}


def set_timer(state: State, device_id: str, at: str) -> Any:
    _online(state, device_id)
    key = code("TIMER", device_id, at)
    state["timers"][key] = {"device_id": device_id, "at": at}
    return {"timer_id": key}


def restart_device(state: State, device_id: str) -> Any:
    record(state, "devices", device_id, "device")["online"] = True
    return {"device_id": device_id, "online": True}


def _home(draw: Draw) -> State:
    rooms = draw.things("rooms", 4)
    names = draw.words["devices"]
    devices: dict[str, dict[str, Any]] = {}

    def put(kind: str, room: str) -> None:
        name = names[kind].format(room=room)
        on = kind in ("fridge", "alarm") or draw.dice.random() < 0.6
        degrees = draw.dice.randint(19, 23) if kind == "heating" else 0
        devices[draw.key("DEV")] = {
            "name": name, "room": room, "kind": kind, "on": on, "degrees": degrees, "online": True,
        }  # fmt: skip

    for room in rooms:
        put("light", room)
    for room in rooms[:2]:
        put("heating", room)
    for kind in KINDS[2:]:
        put(kind, rooms[-1])
    return {"devices": devices, "timers": {}, "session": draw.session(draw.time())}


def _of_kind(state: State, kind: str) -> list[str]:
    return [key for key, device in state["devices"].items() if device["kind"] == kind]


def _tried(state: State, done: Call) -> list[Move]:
    """The call; where its device is offline, with a restart and once more."""
    device_id = done.arguments["device_id"]
    if state["devices"][device_id]["online"]:
        return [move("crux", done)]
    return [move("crux", done), move("again", call("restart_device", device_id=device_id)), move("act", done)]


def leaving(draw: Draw) -> Drawn:
    """Everything off that may be off; one lamp may have to be restarted."""
    state = _home(draw)
    devices = state["devices"]
    lights, heatings = _of_kind(state, "light"), _of_kind(state, "heating")
    for key in draw.dice.sample(lights, 2):
        devices[key]["on"] = True
    burning = [key for key in lights if devices[key]["on"]]
    if draw.dice.random() < 0.6:
        devices[draw.dice.choice(burning)]["online"] = False
    degrees = draw.settings["coldest"]
    offline = [key for key in burning if not devices[key]["online"]]
    moves = [
        move("look", call("list_devices", kind="light"), call("list_devices", kind="heating")),
        move("crux", *(call("switch_device", device_id=key, on=False) for key in burning)),
    ]
    for key in offline:
        moves += [
            move("again", call("restart_device", device_id=key)),
            move("act", call("switch_device", device_id=key, on=False)),
        ]
    moves.append(move("act", *(call("set_heating", device_id=key, degrees=degrees) for key in heatings)))
    always = [*_of_kind(state, "fridge"), *_of_kind(state, "alarm")]
    never = [forbid(call("switch_device", device_id=key, on=False), "device_id", "on") for key in always]
    names = [devices[key]["name"] for key in burning]
    places = {"lights": draw.joined(names), "degrees": degrees, "count": len(burning)}
    return Drawn("leaving", state, moves, names, places, never)


def timer(draw: Draw) -> Drawn:
    """A timer for a loud device, at a time that is allowed or not."""
    state = _home(draw)
    kind = draw.dice.choice(LOUD)
    (device_id,) = _of_kind(state, kind)
    night = draw.settings["night"]
    quiet = draw.dice.random() < 0.5
    hour = draw.dice.choice([*range(night, 24), *range(7)]) if quiet else draw.dice.randint(9, night - 2)
    at = draw.workday(datetime.strptime(state["session"]["current"]["time"], STAMP), 1) + timedelta(
        hours=hour, minutes=15 * draw.dice.randrange(4)
    )
    at_text = at.strftime(STAMP)
    state["devices"][device_id]["online"] = quiet or draw.dice.random() < 0.5
    places = {"at": at_text, "device": draw.words["loud"][kind], "night": night}
    look = move("look", call("list_devices", kind=kind))
    timed = call("set_timer", device_id=device_id, at=at_text)
    if quiet:
        case = code("CASE", device_id, 2)
        moves = [look, move("crux", call("decline_request", subject=device_id, rule=2))]
        return Drawn("timer_declined", state, moves, [case], {**places, "case": case}, [forbid(timed)])
    number = code("TIMER", device_id, at_text)
    return Drawn("timer", state, [look, *_tried(state, timed)], [number], {**places, "timer": number})


def settings(dice: Random) -> dict[str, int]:
    return {"night": dice.choice([20, 21, 22]), "coldest": dice.randint(14, 17), "warmest": dice.randint(23, 25)}


HOME = Domain(
    "home",
    TABLES,
    (
        Tool("list_devices", "Devices of a kind with their state.", {"kind": choice(*KINDS)}, list_devices),
        Tool("switch_device", "Switch a device on or off.", {"device_id": TEXT, "on": FLAG}, switch_device),
        Tool("set_heating", "Set a heating to degrees Celsius.", {"device_id": TEXT, "degrees": AMOUNT}, set_heating),
        Tool("set_timer", "Let a device start at a time.", {"device_id": TEXT, "at": MOMENT}, set_timer),
        Tool("restart_device", "Restart a device that does not answer.", {"device_id": TEXT}, restart_device),
    ),
    {"leaving": leaving, "timer": timer},
    settings,
)
