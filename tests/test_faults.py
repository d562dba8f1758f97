"""A few of the faults that scripts/nightly injects by the hundred: kills, failing writes, short reads, races."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if not hasattr(os, "fork") or sys.platform != "linux":
    pytest.skip("faults are injected into forked processes, on Linux", allow_module_level=True)

from scripts.nightly import faults
from scripts.nightly.fault_injection import Campaign

TOO_SMALL = 100  # bytes: no archive is that short


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return Campaign(tmp_path_factory.mktemp("faults"), seed=1, items=8)


@pytest.fixture(autouse=True)
def whole(campaign: Campaign) -> Iterator[None]:
    """Nothing was lost, wrong or left over; of each fault, something was seen."""
    campaign.rows, campaign.complaints = [], []
    yield
    assert campaign.complaints == []
    assert sum(row.wrong + row.leftovers for row in campaign.rows) == 0
    assert all(row.old + row.new + row.some == row.injected > 0 for row in campaign.rows)


@pytest.fixture
def in_place(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of commands that replace something: the others are tested elsewhere, and by the campaign itself."""
    monkeypatch.setattr(campaign, "cases", [case for case in campaign.cases if case.before])


def test_kills(campaign: Campaign, in_place: None) -> None:
    campaign.measure(1)
    campaign.kill(2 * len(campaign.cases))
    assert {row.fault for row in campaign.rows} == {"SIGKILL at a moment", "SIGKILL at a line"}
    assert {row.operation for row in campaign.rows} == {"compress -f", "decompress -f", "add"}


def test_rejected_writes(campaign: Campaign, in_place: None) -> None:
    campaign.refuse_writes(2 * len(campaign.cases))
    assert sum(row.old for row in campaign.rows) > 0


def test_files_that_may_not_grow(campaign: Campaign, in_place: None) -> None:
    for case in campaign.cases:
        run = campaign.strike(case, "RLIMIT_FSIZE", lambda: faults.limit_files(TOO_SMALL))
        assert run.status == 1 and "File too large" in run.said
    assert all(row.old == row.injected for row in campaign.rows)


def test_a_full_disk_and_a_read_only_one(campaign: Campaign, in_place: None) -> None:
    campaign.fill_a_disk(len(campaign.cases))
    if campaign.skipped:
        pytest.skip(campaign.skipped[-1])
    assert {row.fault for row in campaign.rows} == {"ENOSPC", "read-only"}
    assert all(row.old == row.injected for row in campaign.rows if row.fault == "read-only")


def test_interrupted_calls_and_short_reads(campaign: Campaign, in_place: None) -> None:
    campaign.interrupt_and_read_little(1)
    assert all(row.new == row.injected for row in campaign.rows)


def test_two_writers(campaign: Campaign) -> None:
    campaign.race(1)
    assert len(campaign.rows) == 4


def test_the_campaign_notices_what_is_lost(campaign: Campaign) -> None:
    """Commands that write in place, or leave something behind, are found out."""
    case = campaign.cases[1]

    def damage() -> None:
        from vaedensity.data import atomic

        Path("a.vdz").write_bytes(b"half")
        Path(".a.vdz.partial").write_bytes(b"")
        atomic.os.replace = lambda *names: os.kill(os.getpid(), 9)  # type: ignore[assignment]

    campaign.strike(case, "damage", damage)
    found, campaign.complaints = campaign.complaints, []
    (row,) = campaign.rows
    campaign.rows = []
    assert (row.wrong, row.leftovers, row.old, row.new) == (1, 1, 0, 0)
    assert [line.partition(": ")[2][:36] for line in found] == [
        "a.vdz is neither the old one nor the",
        "the next run leaves ['.a.vdz.partial",
    ]
