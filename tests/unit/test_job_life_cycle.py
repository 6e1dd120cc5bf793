"""The life cycle of jobs as a table: what is allowed, what never is, and that every job can end."""

from __future__ import annotations

from itertools import product

import pytest

from dicom_node.domain.job import (
    TRANSITIONS,
    ForbiddenTransition,
    JobEvent,
    JobState,
    next_state,
)

ENDS = {JobState.DONE, JobState.DISCARDED}


@pytest.mark.parametrize(("state", "step"), list(product(JobState, JobEvent)))
def test_every_pair_is_a_row_of_the_table_or_forbidden(state: JobState, step: JobEvent) -> None:
    if (state, step) in TRANSITIONS:
        assert next_state(state, step) is TRANSITIONS[state, step]
        return
    with pytest.raises(ForbiddenTransition, match=f"a {state} job cannot take the step {step}"):
        next_state(state, step)


def test_nothing_follows_an_end() -> None:
    assert ENDS.isdisjoint(state for state, _ in TRANSITIONS)


def test_only_a_leased_job_can_be_done() -> None:
    before_done = {state for (state, _), after in TRANSITIONS.items() if after is JobState.DONE}
    assert before_done == {JobState.LEASED}


def test_a_claim_is_the_only_way_to_a_lease() -> None:
    ways = {pair for pair, after in TRANSITIONS.items() if after is JobState.LEASED}
    assert ways == {(JobState.QUEUED, JobEvent.CLAIM)}


def test_a_parked_job_moves_only_by_an_operator() -> None:
    steps = {step for state, step in TRANSITIONS if state is JobState.PARKED}
    assert steps == {JobEvent.RETRY, JobEvent.DISCARD}


@pytest.mark.parametrize("state", sorted(set(JobState) - ENDS))
def test_every_job_can_still_be_done(state: JobState) -> None:
    reached = {state}
    for _ in JobState:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert JobState.DONE in reached
