"""Appointments at a clinic: moving one, a wished time that may be gone, and a cancellation that comes too late.

Rules (texts/): 1 confirm the patient; 2 cancel and move only until `hours` hours before; 3 to move an appointment, book
the new one first and cancel the old one then, at the earliest free time of the wished day. Whether a slot is still free
shows when it is booked.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import takewhile
from random import Random
from typing import Any

from synth.tools.domain import (
    DATE,
    DAY,
    FLAG,
    MOMENT,
    STAMP,
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
    verify_tool,
)
from synth.tools.environment import Order, State, Tool, ToolError

HALF_HOURS = range(16, 34)  # of a day, from 8:00 to 16:30
SPECIALTIES = ("dermatology", "dentistry", "ophthalmology", "orthopaedics", "paediatrics", "cardiology")
TABLES = {
    "patients": {"name": TEXT, "birth_date": DATE},
    "doctors": {"name": TEXT, "specialty": choice(*SPECIALTIES)},
    "slots": {"doctor_id": TEXT, "start": MOMENT, "taken": FLAG},
    "appointments": {"patient_id": TEXT, "slot_id": TEXT},
}


def find_doctors(state: State, specialty: str) -> Any:
    return [{"doctor_id": key, **one} for key, one in state["doctors"].items() if one["specialty"] == specialty]


def list_slots(state: State, doctor_id: str, date: str) -> Any:
    record(state, "doctors", doctor_id, "doctor")
    return [
        {"slot_id": key, "start": slot["start"]}
        for key, slot in state["slots"].items()
        if slot["doctor_id"] == doctor_id and slot["start"].startswith(date)
    ]


def list_appointments(state: State, patient_id: str) -> Any:
    record(state, "patients", patient_id, "patient")
    found: list[dict[str, Any]] = []
    for key, appointment in state["appointments"].items():
        if appointment["patient_id"] == patient_id:
            slot = state["slots"][appointment["slot_id"]]
            doctor = {"doctor_id": slot["doctor_id"], "doctor": state["doctors"][slot["doctor_id"]]["name"]}
            found.append({"appointment_id": key, "start": slot["start"], **doctor})
    return found


def book_slot(state: State, patient_id: str, slot_id: str) -> Any:
    record(state, "patients", patient_id, "patient")
    slot = record(state, "slots", slot_id, "slot")
    if slot["taken"]:
        raise ToolError("slot_taken", f"slot {slot_id} at {slot['start']} is taken")
    slot["taken"] = True
    key = code("APT", patient_id, slot_id)
    state["appointments"][key] = {"patient_id": patient_id, "slot_id": slot_id}
    return {"appointment_id": key, "start": slot["start"]}


def cancel_appointment(state: State, appointment_id: str) -> Any:
    slot_id = record(state, "appointments", appointment_id, "appointment")["slot_id"]
    del state["appointments"][appointment_id]
    state["slots"][slot_id]["taken"] = False
    return {"cancelled": appointment_id}


def _clinic(draw: Draw, time: datetime) -> State:
    """Patients, one or two doctors a specialty, slots on five coming working days."""
    names = draw.names(9)
    patients = {
        draw.key("P"): {"name": name, "birth_date": f"{draw.dice.randint(1950, 2015)}-{draw.dice.randint(1, 12):02}-"
                        f"{draw.dice.randint(1, 28):02}"}
        for name in names[:4]
    }  # fmt: skip
    kinds = draw.dice.sample(SPECIALTIES, 3)
    doctors = {
        draw.key("D"): {"name": draw.words["doctor"].format(name=name), "specialty": kind}
        for name, kind in zip(names[4:], [*kinds, *kinds[:1]], strict=False)
    }
    slots: dict[str, dict[str, Any]] = {}
    for day in range(1, 6):
        for doctor_id in doctors:
            for half_hour in sorted(draw.dice.sample(HALF_HOURS, 4)):
                start = draw.workday(time, day) + timedelta(minutes=30 * half_hour)
                slot = {"doctor_id": doctor_id, "start": start.strftime(STAMP), "taken": draw.dice.random() < 0.3}
                slots[draw.key("S")] = slot
    return {
        "patients": patients, "doctors": doctors, "slots": slots, "appointments": {}, "session": draw.session(time),
    }  # fmt: skip


def _appointment(draw: Draw, state: State, start: datetime) -> tuple[str, str]:
    """(appointment, doctor) of the first patient at a time of its own."""
    patient_id, doctor_id = next(iter(state["patients"])), draw.dice.choice(list(state["doctors"]))
    slot_id = draw.key("S")
    state["slots"][slot_id] = {"doctor_id": doctor_id, "start": start.strftime(STAMP), "taken": True}
    key = code("APT", patient_id, slot_id)
    state["appointments"][key] = {"patient_id": patient_id, "slot_id": slot_id}
    return key, doctor_id


def _identify(state: State) -> tuple[str, str, Any]:
    patient_id, patient = next(iter(state["patients"].items()))
    birth = patient["birth_date"]
    return patient_id, birth, move("identify", call("verify_patient", patient_id=patient_id, birth_date=birth))


def reschedule(draw: Draw) -> Drawn:
    """Move an appointment to the earliest free time of another day; too late for it by rule 2, sometimes."""
    time, hours = draw.time(), draw.settings["hours"]
    state = _clinic(draw, time)
    late = draw.dice.random() < 0.4
    starts = [draw.workday(time, day) + timedelta(minutes=30 * half) for day in range(1, 5) for half in HALF_HOURS]
    soon = [one for one in starts if one - time < timedelta(hours=hours)]
    late = late and bool(soon)  # before a weekend nothing may be near enough
    old_start = draw.dice.choice(soon if late else starts[len(soon) :])
    old, doctor_id = _appointment(draw, state, old_start)
    days = [draw.workday(time, number).strftime(DAY) for number in range(2, 6)]
    day = draw.dice.choice([one for one in days if one != old_start.strftime(DAY)])
    patient_id, birth, identify = _identify(state)
    doctor = state["doctors"][doctor_id]["name"]
    old_text = old_start.strftime(STAMP)
    places = {"patient": patient_id, "birth": birth, "doctor": doctor, "day": day, "old": old_text}
    opening = [identify, move("look", call("list_appointments", patient_id=patient_id))]
    if late:
        case = code("CASE", old, 2)
        free = next(key for key, one in state["slots"].items() if not one["taken"])
        booked = call("book_slot", patient_id=patient_id, slot_id=free)
        never = [forbid(call("cancel_appointment", appointment_id=old)), forbid(booked)]
        moves = [*opening, move("crux", call("decline_request", subject=old, rule=2))]
        return Drawn("too_late", state, moves, [case, old_text], {**places, "case": case}, never)
    own = [key for key, one in state["slots"].items() if one["doctor_id"] == doctor_id and one["start"][:10] == day]
    own.sort(key=lambda key: state["slots"][key]["start"])
    state["slots"][own[-1]]["taken"] = False
    moves = [*opening, move("look", call("list_slots", doctor_id=doctor_id, date=day))]
    tried = list(takewhile(lambda key: state["slots"][key]["taken"], own))
    slot_id = own[len(tried)]
    for place, one in enumerate([*tried, slot_id]):
        moves.append(move("again" if place else "crux", call("book_slot", patient_id=patient_id, slot_id=one)))
    moves.append(move("act", call("cancel_appointment", appointment_id=old)))
    new_id, new = code("APT", patient_id, slot_id), state["slots"][slot_id]["start"]
    return Drawn("reschedule", state, moves, [new_id, new], {**places, "code": new_id, "new": new})


def wished(draw: Draw) -> Drawn:
    """Book a wished time, or the second wish when it is gone."""
    time = draw.time()
    state = _clinic(draw, time)
    patient_id, birth, identify = _identify(state)
    doctor_id, doctor = draw.dice.choice(list(state["doctors"].items())[1:3])
    day = draw.workday(time, draw.dice.randint(1, 5)).strftime(DAY)
    own = [key for key, one in state["slots"].items() if one["doctor_id"] == doctor_id and one["start"][:10] == day]
    first, second = draw.dice.sample(own, 2)
    gone = draw.dice.random() < 0.6
    state["slots"][first]["taken"], state["slots"][second]["taken"] = gone, False
    got = second if gone else first
    moves = [
        identify,
        move("look", call("find_doctors", specialty=doctor["specialty"])),
        move("look", call("list_slots", doctor_id=doctor_id, date=day)),
        move("crux", call("book_slot", patient_id=patient_id, slot_id=first)),
        *([move("again", call("book_slot", patient_id=patient_id, slot_id=second))] if gone else []),
    ]
    places = {
        "patient": patient_id, "birth": birth, "day": day, "specialty": draw.words["specialties"][doctor["specialty"]],
        "first": state["slots"][first]["start"][11:], "second": state["slots"][second]["start"][11:],
        "code": code("APT", patient_id, got), "new": state["slots"][got]["start"], "doctor": doctor["name"],
    }  # fmt: skip
    return Drawn("wished", state, moves, [places["code"], doctor["name"]], places)


def settings(dice: Random) -> dict[str, int]:
    return {"hours": dice.choice([24, 48])}


CLINIC = Domain(
    "clinic",
    TABLES,
    (
        verify_tool("verify_patient", "patients", "patient", "birth_date"),
        Tool("find_doctors", "Doctors of a specialty.", {"specialty": choice(*SPECIALTIES)}, find_doctors),
        Tool("list_slots", "Slots of a doctor on a day, taken or not.", {"doctor_id": TEXT, "date": DATE}, list_slots),
        Tool("list_appointments", "Coming appointments of a patient.", {"patient_id": TEXT}, list_appointments),
        Tool("book_slot", "Book a slot; fails if it is taken.", {"patient_id": TEXT, "slot_id": TEXT}, book_slot),
        Tool("cancel_appointment", "Cancel an appointment.", {"appointment_id": TEXT}, cancel_appointment),
    ),
    {"reschedule": reschedule, "wished": wished},
    settings,
    order=(
        Order("verify_patient", ("book_slot", "cancel_appointment", "decline_request")),
        Order("book_slot", ("cancel_appointment",)),
    ),
)
