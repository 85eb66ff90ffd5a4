"""`rlrun doctor`: what is probably wrong with a configuration or with a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from rl_runner.doctor.finding import Finding
from rl_runner.run.terminal import facts_table, make_console
from rl_runner.types import State


@dataclass
class Report:
    """What was found.

    Attributes:
        facts: names and what is said of them; without a name: of the one above.
        findings: one line each.
        numbers: the same as the facts, for programs.
    """

    facts: list[tuple[str, str]]
    findings: Sequence[Finding]
    numbers: State = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        """`rlrun train` would refuse the configuration."""
        return any(finding.refused for finding in self.findings)


def show(report: Report, as_json: bool) -> int:
    """Print a report; return the exit status."""
    status = 2 if report.refused else 0
    if as_json:
        found = [finding.plain() for finding in report.findings]
        print(json.dumps({"refused": report.refused, "findings": found, **report.numbers}, indent=1))
        return status
    console = make_console()
    console.print(facts_table(report.facts))
    for finding in report.findings:  # each in one line, for grep
        console.print(f"{'refused' if finding.refused else 'warning'}: {finding}", markup=False)
    if not report.findings:
        console.print("nothing suspicious found")
    return status
