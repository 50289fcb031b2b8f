"""How a step is told: what was asked, what was decided, what came of it, and whether it was expected.

A `Teller` prints for people and remembers for the summary and the tests. An expectation that does not
hold is not an exception: the story goes on, and its end says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mesh.core.placement import Decision
from mesh.core.retrieval import AnswerSentence, Coverage, Hit, Outcome


@dataclass
class Expectation:
    """Something that had to be so."""

    text: str
    held: bool
    seen: str = ""


@dataclass
class StepResult:
    """What came of one step."""

    number: int
    title: str
    expectations: list[Expectation] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    first_token_ms: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether everything was as expected, and anything was expected at all."""
        return bool(self.expectations) and all(e.held for e in self.expectations)


@dataclass
class Served:
    """One finished stream, as its caller saw it. Times in seconds."""

    node: str
    text: str
    tokens: int
    first_token_s: float
    seconds: float
    failovers: list[tuple[str, str, str, str]] = field(default_factory=list)  # from, to, mode, reason


class Teller:
    """Tells the steps of one story."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(quiet=True)
        self.results: list[StepResult] = []

    @contextmanager
    def step(self, number: int, title: str) -> Iterator[StepResult]:
        """Everything told inside belongs to this step; an exception is an expectation that failed."""
        result = StepResult(number, title)
        self.results.append(result)
        self.console.print()
        self.console.rule(f"[bold]{number}. {escape(title)}", align="left")
        started = time.monotonic()
        try:
            yield result
        except Exception as error:
            # Told, and then raised: the story's runner decides whether to go on.
            self.expect("the step runs to its end", False, f"{type(error).__name__}: {error}")
            raise
        finally:
            result.seconds = time.monotonic() - started

    def asked(self, text: str) -> None:
        """What somebody wants."""
        self.console.print(f"  [cyan]asked[/]    {escape(text)}")

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self.console.print(f"  [dim]{escape(text)}[/]")

    def decision(self, decision: Decision) -> None:
        """Chosen, alternatives, and who was refused for which reason."""
        if decision.chosen:
            rest = [f"{short(str(r.node))} (score {r.score:.2f})" for r in decision.ranked[1:]]
            first = decision.ranked[0]
            by = ", ".join(first.permitted_by)
            self.console.print(
                f"  [cyan]decided[/]  [green]{short(str(first.node))}[/] "
                f"(score {first.score:.2f}; {escape(by)})"
                + (f"; or {', '.join(rest)}" if rest else "; nowhere else")
            )
        else:
            self.console.print("  [cyan]decided[/]  [red]refused[/]: no node is permitted")
        for refused in decision.refused:
            self.console.print(
                f"           [red]✗[/] {short(str(refused.node))} [yellow]{refused.reason.code}[/] "
                f"[dim]{escape(refused.detail)}[/]"
            )

    def served(self, what: str, served: Served) -> None:
        """Where it was served, how fast, and a taste of the text."""
        result = self.results[-1]
        result.served.append(served.node)
        result.first_token_ms.append(served.first_token_s * 1000)
        result.tokens += served.tokens
        for origin, target, mode, reason in served.failovers:
            self.console.print(f"  [yellow]moved[/]    {short(origin)} → {short(target)}: {mode} ({reason})")
        taste = " ".join(served.text.split())[:60]
        self.console.print(
            f"  [cyan]served[/]   {escape(what)} on [green]{short(served.node)}[/]: first token after "
            f"{served.first_token_s * 1000:.0f} ms, {served.tokens} tokens in {served.seconds:.1f} s "
            f"[dim]“{escape(taste)}…”[/]"
        )

    def hits(self, hits: Sequence[Hit]) -> None:
        """What was found, as much of it as its asker may see."""
        for hit in hits:
            text = " ".join(hit.released.text.split())[:80]
            self.console.print(
                f"  [cyan]{hit.rank:>7}.[/]  {short(str(hit.reference.node))} "
                f"[yellow]{hit.released.level.word}[/] [dim]{escape(text) or '(opaque)'}[/]"
            )

    def sentences(self, sentences: Sequence[AnswerSentence]) -> None:
        """An answer, each sentence with where it comes from."""
        for sentence in sentences:
            places = sorted({short(str(reference.node)) for reference in sentence.references})
            how = " quoted" if sentence.extracted else ""
            self.console.print(
                f"  [cyan]answer[/]   [green]“{escape(sentence.text)}”[/] "
                f"[dim]{', '.join(places)}, {sentence.level.word}{how}[/]"
            )

    def coverage(self, coverage: Sequence[Coverage]) -> None:
        """What became of each node that holds the collection."""
        for node in coverage:
            where = short(str(node.node))
            if node.outcome is Outcome.ANSWERED:
                counted = f", {node.counted} only counted" if node.counted else ""
                self.console.print(
                    f"  [cyan]covers[/]   [green]✓[/] {where} after {node.latency_ms:.0f} ms, "
                    f"up to {node.highest.word}{counted}"
                )
            else:
                reason = node.reason.code if node.reason else ""
                self.console.print(
                    f"           [red]✗[/] {where} {node.outcome.value}: [yellow]{reason}[/] "
                    f"[dim]{escape(node.detail)}[/]"
                )

    def expect(self, text: str, held: bool, seen: str = "") -> bool:
        """Something that must be so; told, remembered, and returned."""
        self.results[-1].expectations.append(Expectation(text, held, seen))
        mark = "[green]✓[/]" if held else "[bold red]✗[/]"
        tail = f" [dim]({escape(seen)})[/]" if seen and (not held or len(seen) < 80) else ""
        self.console.print(f"  {mark} {escape(text)}{tail}")
        return held

    @property
    def held(self) -> bool:
        """Whether the whole story was as expected."""
        return bool(self.results) and all(result.held for result in self.results)

    def summary(self) -> Table:
        """One row a step."""
        table = Table(title="The story", title_justify="left")
        for heading in ("", "step", "served on", "first token", "tokens", "checks", "time"):
            table.add_column(
                heading, justify="right" if heading in ("first token", "tokens", "time") else "left"
            )
        for result in self.results:
            places = {name: result.served.count(name) for name in sorted(set(result.served))}
            first = sorted(result.first_token_ms)
            table.add_row(
                "[green]✓[/]" if result.held else "[bold red]✗[/]",
                f"{result.number}. {escape(result.title)}",
                ", ".join(short(n) + (f" ×{count}" if count > 1 else "") for n, count in places.items())
                or "–",
                f"{first[len(first) // 2]:.0f} ms" if first else "–",
                str(result.tokens) if result.tokens else "–",
                f"{sum(e.held for e in result.expectations)}/{len(result.expectations)}",
                f"{result.seconds:.1f} s",
            )
        return table


def short(node: str) -> str:
    """``spiffe://de.mesh.example/node/fra-1`` as ``fra-1 (DE)``."""
    if not node.startswith("spiffe://"):
        return node
    trust_domain, _, path = node.removeprefix("spiffe://").partition("/")
    return f"{path.rsplit('/', 1)[-1]} ({trust_domain.split('.')[0].upper()})"
