"""The domains of tool environments, by name."""

from __future__ import annotations

from collections.abc import Mapping

from synth.tools.domain import Domain
from synth.tools.domains.cards import CARDS
from synth.tools.domains.clinic import CLINIC
from synth.tools.domains.home import HOME
from synth.tools.domains.library import LIBRARY
from synth.tools.domains.meetings import MEETINGS
from synth.tools.domains.restaurant import RESTAURANT
from synth.tools.domains.trains import TRAINS
from synth.tools.domains.warehouse import WAREHOUSE

DOMAINS: Mapping[str, Domain] = {
    domain.name: domain for domain in (LIBRARY, CLINIC, WAREHOUSE, TRAINS, CARDS, HOME, MEETINGS, RESTAURANT)
}
