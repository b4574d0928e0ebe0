"""Write the table of decisions as Markdown: `python -m colod.failover.describe docs/failover.md`.

Everything between the markers in that file is made here, from the rules themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from colod.failover.effects import State
from colod.failover.rules import CHAPTERS, RULES, Rule
from colod.failover.rules.table import AnyOf, Not, Predicate, Then, name_of

BEGIN = "<!-- generated: python -m colod.failover.describe docs/failover.md -->"
END = "<!-- end of what is generated -->"


def described() -> str:
    """Return the generated part."""
    parts = (_diagram(), *_chapters(), "### Facts\n", *_facts())
    return "\n".join(parts) + "\n"


def updated(text: str) -> str:
    """Return a document with its generated part made anew.

    Raises:
        ValueError: If the markers are not there.
    """
    before, _, rest = text.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise ValueError(f"no generated part: want {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{described()}\n{END}{after}"


def _chapters() -> Iterator[str]:
    for title, rules in CHAPTERS.items():
        yield f"\n### {title}\n"
        yield "| rule | fits when | shows | does | notes first |"
        yield "|---|---|---|---|---|"
        yield from (_row(rule) for rule in rules)
    yield ""


def _row(rule: Rule) -> str:
    then = rule.then
    assert isinstance(then, Then)
    when = "; ".join(_words(fact) for fact in rule.when) or "always"
    notes = "the witness's record" if then.learn else ", ".join(sorted(then.journal))
    return f"| `{rule.name}` | {when} | {_state(then)} | {_does(then)} | {notes} |"


def _words(fact: Predicate) -> str:
    return name_of(fact).replace("_", " ")


def _state(then: Then) -> str:
    if then.state is None:
        return ""
    if isinstance(then.state, State):
        return str(then.state)
    return str(then.state.__doc__).splitlines()[0].rstrip(".")


def _does(then: Then) -> str:
    if then.record is not None:
        return "writes: " + _record_words(then)
    return str(then.do).replace("_", " ") if then.do else ""


def _record_words(then: Then) -> str:
    return str(getattr(then.record, "__name__", "")).strip("_").replace("_", " ")


def _facts() -> Iterator[str]:
    yield "| fact | in words |"
    yield "|---|---|"
    named = {name_of(fact): fact for rule in RULES for each in rule.when for fact in _plain(each)}
    for name, fact in sorted(named.items()):
        yield f"| {name.replace('_', ' ')} | {str(fact.__doc__).splitlines()[0]} |"


def _plain(fact: Predicate) -> Iterable[Predicate]:
    if isinstance(fact, Not):
        return _plain(fact.fact)
    if isinstance(fact, AnyOf):
        return [plain for each in fact.facts for plain in _plain(each)]
    return [fact]


def _diagram() -> str:
    """Draw the chapters in the order in which they are asked, and what each can do."""
    lines = ["```mermaid", "flowchart TD", "    view([a view of the facts])"]
    last = "view"
    for at, (title, rules) in enumerate(CHAPTERS.items()):
        lines.append(f'    c{at}["{title}"]')
        lines.append(
            f"    {last} --> c{at}" if at == 0 else f"    {last} -- no rule fits --> c{at}"
        )
        effects = sorted({_effect(rule) for rule in rules} - {""})
        lines.append(f'    c{at} -.-> e{at}("{"<br/>".join(effects)}")')
        last = f"c{at}"
    return "\n".join([*lines, "```"])


def _effect(rule: Rule) -> str:
    then = rule.then
    assert isinstance(then, Then)
    return _does(then)


def main(argv: list[str]) -> None:
    """Rewrite the generated part of the file that is named."""
    path = Path(argv[0])
    path.write_text(updated(path.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
