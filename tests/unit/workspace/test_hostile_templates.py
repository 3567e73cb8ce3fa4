"""Overrides and layers that reach for code, files, the environment, tokens, CPU or memory render to harmless
text or are refused with one sentence that names them, within a second of CPU and 50 MB (rules.md 8)."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.unit.workspace.hostile_templates import CANARY, MOST_CPU_S, NAME, Hostile, corpus
from worker.workspace.overrides import OUTPUT_LIMIT

LONGEST_SENTENCE = 2_000
CORPUS = corpus()


Outcome = tuple[Hostile, str, dict[str, Any]]
PLANTED = Hostile("planted", "")


@pytest.fixture(scope="module")
def all_outcomes() -> list[Outcome]:
    """What became of each attempt, in each way, in a process of little memory."""
    command = [sys.executable, "-m", "tests.unit.workspace.hostile_templates"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    lines = run.stdout.splitlines()
    last = lines[-1][:200] if lines else ""
    assert run.returncode == 0, f"{run.returncode} at {last}\n{run.stderr[-2000:]}"
    found = []
    for line in lines:
        place, told = line.split("\t", 1)
        number, way = place.split()
        found.append((CORPUS[int(number)] if number != "-1" else PLANTED, way, json.loads(told)))
    return found


@pytest.fixture
def outcomes(all_outcomes: list[Outcome]) -> list[Outcome]:
    return [each for each in all_outcomes if each[0] != PLANTED]


def test_what_was_planted_is_noticed(all_outcomes: list[Outcome]) -> None:
    told = {way: told for hostile, way, told in all_outcomes if hostile == PLANTED}
    assert told["reached"]["reached"][0].startswith("open ")
    assert told["held"]["held"] is True
    assert told["refusal"]["refusal"].startswith("MemoryError")
    assert told["seconds"]["seconds"] >= MOST_CPU_S


def shown(hostile: Hostile, way: str, told: dict[str, Any]) -> str:
    source = hostile.source if len(hostile.source) < 90 else f"{hostile.source[:90]}..."
    return f"{hostile.family}, {way}, {source!r}: {str(told)[:300]}"


def test_the_corpus_is_large_and_every_attempt_came_to_an_end(
    outcomes: list[Outcome],
) -> None:
    assert len(CORPUS) >= 300
    assert [way for _, way, _ in outcomes].count("layer") == len(CORPUS)
    slowest = max(outcomes, key=lambda each: each[2]["seconds"])
    print(f"{len(CORPUS)} templates, {len(outcomes)} readings; slowest: {shown(*slowest)}")
    slow = [shown(*each) for each in outcomes if each[2]["seconds"] > MOST_CPU_S]
    assert slow == []


def test_nothing_is_executed_or_read_and_no_token_comes_out(
    outcomes: list[Outcome],
) -> None:
    assert [shown(*each) for each in outcomes if each[2]["reached"]] == []
    assert [shown(*each) for each in outcomes if each[2]["held"]] == []
    large = [shown(*each) for each in outcomes if each[2]["length"] > OUTPUT_LIMIT]
    assert large == []
    told = json.dumps([told["refusal"] for _, _, told in outcomes])
    assert CANARY not in told


def test_a_refusal_is_one_sentence_that_names_the_template(
    outcomes: list[Outcome],
) -> None:
    refused = [each for each in outcomes if each[2]["refusal"] is not None]
    assert len(refused) > len(CORPUS)
    for hostile, way, told in refused:
        says = told["refusal"]
        names = [NAME, *hostile.parts]
        assert says.startswith(tuple(f"{name}, line " for name in names)), shown(hostile, way, told)
        assert says.isprintable(), shown(hostile, way, told)
        assert len(says) <= LONGEST_SENTENCE, shown(hostile, way, told)
        assert "MemoryError" not in says, shown(hostile, way, told)
