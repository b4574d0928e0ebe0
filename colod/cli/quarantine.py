"""`colodctl quarantine`: the copies of guests that another generation has left on this host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from colod.cli import layout
from colod.cli.daemon import (
    GUEST,
    REASON,
    check_may_ask,
    connect,
    json_option,
    operator,
    print_json,
)
from colod.cli.exits import Exit
from colod.errors import ColodError

if TYPE_CHECKING:
    from colod.observe.json_types import (
        QuarantinedCopy,
        QuarantineDiscardDocument,
        QuarantineDocument,
        QuarantineKeepDocument,
    )
    from colod.v1 import admin_pb2

    _TextParameter = click.ParamType[str]
else:  # older releases of click cannot be subscripted
    _TextParameter = click.ParamType

_COMPLETION_TIMEOUT_S = 1.0


class _CopyParameter(_TextParameter):
    """A domain's name; completed with those of the copies that the daemon knows."""

    name = "copy"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the copies; none if the daemon does not answer at once."""
        try:
            with connect(ctx) as client:
                copies = client.quarantine(timeout_s=_COMPLETION_TIMEOUT_S).copies
        except (ColodError, click.UsageError):
            return []
        return [
            CompletionItem(each.domain) for each in copies if each.domain.startswith(incomplete)
        ]


@click.group()
def quarantine() -> None:
    """Deal with the copies that lost their guest, and that this host keeps.

    A host that loses a guest keeps its own copy, paused, until the new owner was seen running the
    guest. Then `policy.quarantine` says whether that copy is discarded or put aside.
    """


@quarantine.command("list")
@click.argument("guest", type=GUEST, required=False)
@json_option
@click.pass_context
def list_(context: click.Context, guest: str | None, *, as_json: bool) -> None:
    """Show the copies on this host: of which generation, why, since when, and their memory."""
    with connect(context) as client:
        copies = client.quarantine(guest or "").copies
    if as_json:
        content: QuarantineDocument = {"copies": [_copy_json(each) for each in copies]}
        print_json(content)
        return
    for line in _lines(copies, layout.width()):
        click.echo(line)


@quarantine.command()
@click.argument("copy", type=_CopyParameter())
@click.option(
    "--force-reason",
    type=REASON,
    help="Discard it although somebody has it kept, and why; nothing else is overridden.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@json_option
@click.pass_context
def discard(
    context: click.Context,
    *,
    copy: str,
    force_reason: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Destroy COPY, a domain that `list` shows; nothing brings it back.

    Refused unless the witness and the host that owns the guest both answer and say that the guest
    was seen running there and is there now: else this may be the last copy. Refused too while
    somebody has it kept.
    """
    from colod.v1 import admin_pb2

    check_may_ask(context, yes=yes, dry_run=dry_run, as_json=as_json)
    request = admin_pb2.DiscardQuarantinedRequest(
        domain=copy, force_reason=force_reason or "", operator=operator(), dry_run=True
    )
    with connect(context) as client:
        reply = client.discard_quarantined(request)
        if not as_json:
            layout.print_plan(reply.plan)
        if not (dry_run or yes or click.confirm(f"Discard {copy}?", err=True)):
            click.echo("nothing was done", err=True)
            context.exit(Exit.FAILED)
        if not dry_run:
            request.dry_run = False
            reply = client.discard_quarantined(request)
    if as_json:
        content: QuarantineDiscardDocument = {
            "dry_run": dry_run,
            "plan": list(reply.plan),
            "copy": _copy_json(reply.copy),
        }
        print_json(content)
    else:
        click.echo(f"{copy}: {'nothing was done' if dry_run else 'discarded'}")


@quarantine.command()
@click.argument("copy", type=_CopyParameter())
@click.option("--reason", type=REASON, help="Why, for whoever wants it gone later; it is kept.")
@click.option("--withdraw", is_flag=True, help="Give the order up instead.")
@json_option
@click.pass_context
def keep(
    context: click.Context, *, copy: str, reason: str | None, withdraw: bool, as_json: bool
) -> None:
    """Have COPY kept: whatever the policy says, it is put aside and not discarded.

    COPY is a domain that `list` shows, or a guest whose primary this host is, for the case that it
    loses it. The order holds for that very domain, and ends with it or with --withdraw.
    """
    from colod.v1 import admin_pb2

    if withdraw == bool(reason):
        raise click.UsageError("want either --reason TEXT or --withdraw", context)
    request = admin_pb2.KeepQuarantinedRequest(
        domain=copy, reason=reason or "", operator=operator(), withdraw=withdraw
    )
    with connect(context) as client:
        reply = client.keep_quarantined(request)
    if as_json:
        content: QuarantineKeepDocument = {"copy": _copy_json(reply.copy)}
        print_json(content)
    else:
        click.echo(f"{copy}: {'nobody has it kept any more' if withdraw else 'is kept'}")


def _lines(copies: Sequence[admin_pb2.QuarantinedCopy], columns: int) -> Iterator[str]:
    if not copies:
        yield "this host keeps no copy that lost its guest"
        return
    rows = [
        [
            each.domain,
            each.kind,
            str(each.generation or "-"),
            layout.size(each.memory_bytes),
            layout.instant(each.since_unix_s) or "unknown",
        ]
        for each in copies
    ]
    heads = ["COPY", "KIND", "GENERATION", "MEMORY", "SINCE"]
    yield from layout.table(heads, rows, columns, names=(0,))
    for each in copies:
        yield ""
        yield from layout.paragraph(each.domain, f"{each.domain_state}; {each.why}", columns)
        if each.HasField("keep"):
            who = each.keep.operator or "somebody"
            yield from layout.paragraph("kept", f"by {who}: {each.keep.reason}", columns)
        if each.refusal:
            yield from layout.paragraph("no discard", each.refusal, columns)
            yield from layout.paragraph("hint", each.advice, columns)


def _copy_json(copy: admin_pb2.QuarantinedCopy) -> QuarantinedCopy:
    keep = copy.keep
    return {
        "domain": copy.domain,
        "guest": copy.guest,
        "kind": copy.kind,
        "generation": copy.generation or None,
        "why": copy.why,
        "since_unix_s": copy.since_unix_s or None,
        "memory_bytes": copy.memory_bytes,
        "domain_state": copy.domain_state,
        "keep": {"operator": keep.operator, "reason": keep.reason, "unix_s": keep.unix_s}
        if copy.HasField("keep")
        else None,
        "refusal": copy.refusal or None,
        "advice": copy.advice,
    }
