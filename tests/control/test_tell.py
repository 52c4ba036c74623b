"""What is told of a run that halted trading."""

import pytest

from control.tell import stays_halted
from incidents.incident import Incident, State
from incidents.ports import RunRecord
from kernel.time import Instant
from runbooks.model import Conclusion, HaltMarket, HaltSymbol, Outcome, ResumeMarket, ResumeSymbol, Undo
from tests.sim.library import book, step

RUN = RunRecord(
    id="INC-1/run-1", incident="INC-1", runbook="book", target="market", labels={}, started_at=Instant(1),
    ended_at=Instant(2), outcome="mended",
)  # fmt: skip
MENDED = Conclusion(outcome=Outcome.MENDED, reason="", detail="")
INCIDENT = Incident(
    id="INC-1", title="t", level=2, service="engine", team="t", key="engine", state=State.OPEN, opened_at=Instant(1),
    updated_at=Instant(1), entries=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        ((HaltMarket("operator"),), True),
        ((HaltMarket("operator"), ResumeMarket()), False),
        ((ResumeMarket(), HaltMarket("operator")), True),
        ((HaltSymbol("TWA", "gap"), ResumeMarket()), True),
        ((HaltSymbol("TWA", "gap"), ResumeSymbol("TWA")), False),
        ((HaltSymbol("TWA", "gap"), ResumeSymbol("TWB")), True),
    ],
)
def test_a_person_is_asked_to_reopen_only_what_the_runbook_left_halted(actions, told):
    runbook = book("book", "X", "engine", 2, (), *(step(one, Undo.KEEP, None) for one in actions))
    assert bool(stays_halted(RUN, MENDED, INCIDENT, runbook)) is told
