"""`colodctl doctor`."""

from __future__ import annotations

import click

from colod.cli import layout
from colod.cli.daemon import GUEST, connect, json_option, print_json
from colod.cli.exits import Exit
from colod.observe.json_types import DoctorDocument, Finding

_SEVERITY_COLUMNS = len("warning")


@click.command()
@click.argument("guest", type=GUEST, required=False)
@json_option
@click.pass_context
def doctor(context: click.Context, guest: str | None, *, as_json: bool) -> None:
    """Examine this host, its peer and the witness, and whether GUEST could be protected.

    Exit status 1 if there is an error; warnings do not count.
    """
    with connect(context) as client:
        findings = client.doctor(guest or "").findings
    if as_json:
        found = [
            Finding(
                severity=each.severity, subject=each.subject, text=each.text, advice=each.advice
            )
            for each in findings
        ]
        print_json(DoctorDocument(findings=found))
    else:
        for finding in findings:
            fact = f"{finding.subject}: {finding.text}"
            hint = f"hint: {finding.advice}" if finding.advice else ""
            severity = finding.severity.ljust(_SEVERITY_COLUMNS)
            blank = " " * len(severity)
            for line in layout.pairs([(severity, fact), (blank, hint)], layout.width()):
                click.echo(line)
    if any(finding.severity == "error" for finding in findings):
        context.exit(Exit.FAILED)
