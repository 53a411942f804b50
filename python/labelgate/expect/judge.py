"""Expectations judged: what was found, what decided, and whether that is as expected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labelgate.expect.question import Question
from labelgate.expect.questions import questions
from labelgate.expect.sides import Unanswerable
from labelgate.expect.world import World
from labelgate.flow import FieldError, Hook, Step, Verdict
from labelgate.path import Visit, walk
from labelgate.resources import DecidedBy, Expectation, PolicyTest
from labelgate.resources.values import did_you_mean
from labelgate.table import Decision, DecisionTable

Direction = Literal["ingress", "egress"]
Rule = tuple[str, Direction, int]
"""A rule by its policy, direction, and number within it, from 0."""

_DIRECTIONS: tuple[Direction, Direction] = ("egress", "ingress")
_STAGES: dict[str, Direction] = {
    "from-hep": "ingress",
    "to-hep": "egress",
    "workload-egress": "egress",
    "workload-ingress": "ingress",
}
_HOOKS: dict[str, Direction] = {
    "raw-prerouting": "ingress",
    "mangle-prerouting": "ingress",
    "filter-input": "ingress",
}


class EnginesDiffer(Exception):
    """The table decides otherwise than its own rules, one by one: a bug of ours."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A step, and the direction of the rules that it is one of."""

    step: Step
    direction: Direction


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one question, and to all that it stands for."""

    question: Question
    verdict: Verdict
    """Of a whole way `deny`, or `allow` where nothing denies."""
    hook: Hook | None
    """Where the way ends; None between workloads."""
    steps: tuple[Passed, ...]
    """All that was passed."""
    deciding: tuple[Passed, ...]
    """What denied; or all that allowed on the way, or else what was asked last."""

    @property
    def rules(self) -> set[Rule]:
        """Every rule that matched."""
        return {
            (passed.step.policy, passed.direction, passed.step.rule)
            for passed in self.steps
            if passed.step.policy is not None and passed.step.rule is not None
        }


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """One expectation, judged."""

    test: PolicyTest
    index: int
    """Of the expectation in its document, from 0."""
    answers: tuple[Answered, ...] = ()
    failures: tuple[Answered, ...] = ()
    """Those of `answers` that are not as expected."""
    error: str | None = None
    """Why it cannot be asked."""

    def __repr__(self) -> str:
        """Where it stands, and how many questions are answered as expected."""
        found = f"{self.asked - self.wrong} of {self.asked} as expected" if self.error is None else self.error
        return f"Result({self.place}: {self.title}: {found})"

    @property
    def expectation(self) -> Expectation:
        """What was asked."""
        return self.test.spec.expectations[self.index]

    @property
    def asked(self) -> int:
        """How many questions there are."""
        return sum(answer.question.count for answer in self.answers)

    @property
    def wrong(self) -> int:
        """How many of them are answered otherwise."""
        return sum(answer.question.count for answer in self.failures)

    @property
    def is_as_expected(self) -> bool:
        """Every answer is, and there is one."""
        return not self.failures and self.error is None

    @property
    def place(self) -> str:
        """`file:line:column`."""
        found = self.test.places[self.index]
        return f"{self.test.location.file}:{found.line}:{found.column}"

    @property
    def title(self) -> str:
        """Its name, or what it asks."""
        return self.expectation.name or _summary(self.expectation)


def _summary(expectation: Expectation) -> str:
    ends = (", ".join(peer.text for peer in peers) for peers in (expectation.from_, expectation.to))
    ports = ",".join(str(ports.as_written()) for ports in expectation.port)
    names = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP", None: "TCP"}
    number = expectation.protocol
    icmp = "" if expectation.icmp is None else f" type {expectation.icmp.type}"
    protocol = names.get(number, f"protocol {number}") + icmp
    return " ".join(filter(None, (" -> ".join(ends), protocol, ports, expectation.expect)))


def judge(world: World, test: PolicyTest, index: int) -> Result:
    """Asks the table everything that one expectation asks.

    Raises:
        EnginesDiffer: the table contradicts its own rules.
    """
    expectation = test.spec.expectations[index]
    try:
        if expectation.decided_by is not None:
            _check_policy(world, expectation.decided_by)
        answers = tuple(answer(world, question) for question in questions(world, test, expectation))
        if expectation.decided_by is not None:
            _check_direction(expectation.decided_by, answers)
    except (Unanswerable, FieldError) as error:
        return Result(test, index, error=str(error))
    failures = tuple(answer for answer in answers if not _is_expected(expectation, answer))
    return Result(test, index, answers, failures)


def _is_expected(expectation: Expectation, answer: Answered) -> bool:
    if expectation.expect == "allow":
        holds = answer.verdict != "deny"
    else:
        holds = answer.verdict == expectation.expect
    wanted = expectation.decided_by
    return holds and (wanted is None or any(is_decided_by(wanted, passed) for passed in answer.deciding))


def _check_policy(world: World, wanted: DecidedBy) -> None:
    """A name that is misspelt would never be what decided."""
    if wanted.policy is None or wanted.policy in world.policies:
        return
    same = [name for name in sorted(world.policies) if name.rpartition("/")[2] == wanted.policy]
    near = f"did you mean `{same[0]}`?" if same else did_you_mean(wanted.policy, sorted(world.policies))
    raise Unanswerable(
        f"`decidedBy`: no policy or profile of the policies' files is `{wanted.policy}`; "
        + (
            near
            or "expected `Kind/namespace/name` or `Kind/name`, as failures and `labelgate explain` print it"
        )
    )


def _check_direction(wanted: DecidedBy, answers: tuple[Answered, ...]) -> None:
    """A rule's number means another rule in the other direction: which one is meant must be said."""
    if wanted.rule is None or wanted.direction is not None:
        return
    of_policy = wanted.model_copy(update={"rule": None})
    for answer in answers:
        found = {
            passed.direction: passed.step.rule
            for passed in answer.deciding
            if is_decided_by(of_policy, passed)
        }
        if len(set(found.values())) > 1 and len(found) > 1:
            rules = " and ".join(f"{direction} rule {rule}" for direction, rule in found.items())
            raise Unanswerable(
                f"`decidedBy` is ambiguous: {rules} of {wanted.policy} decide both; give its `direction`"
            )


def is_decided_by(wanted: DecidedBy, passed: Passed) -> bool:
    """Whether a step is one of the policy, rule, direction and tier that are named."""
    step = passed.step
    return (
        wanted.direction in (None, passed.direction)
        and wanted.policy in (None, step.policy)
        and wanted.rule in (None, step.rule)
        and wanted.tier in (None, step.tier)
    )


def answer(world: World, question: Question) -> Answered:
    """What the table says, with every step.

    Raises:
        EnginesDiffer: it contradicts its own rules.
        Unanswerable: NAT does not send the packet where it is said to.
    """
    if question.table is None:
        return _connection(world.cluster, question)
    if question.is_hook:
        return _way(question, [Visit(question.packet, question.table.decide_packet(question.packet))])
    way = list(walk(question.table.decide_packet, question.packet, question.dnat, question.out_before_dnat))
    if not question.is_way_known and any(visit.packet.ct == "untracked" for visit in way):
        raise Unanswerable(
            f"where does it go? It is untracked, no NAT sends it to `dnat` (E-62), and {question.destination}"
            " is not known to be of the node: ask about its way without `dnat`"
        )
    return _way(question, way)


def _connection(table: DecisionTable, question: Question) -> Answered:
    found = table.connectivity(question.packet)
    traces = table.connectivity_trace(question.packet)
    if question.is_denied is not None and question.is_denied != (found.verdict == "deny"):
        raise EnginesDiffer(
            f"{question.packet}: {found} but by column {'deny' if question.is_denied else 'allow'}"
        )
    both = zip((found.egress, found.ingress), traces, strict=True)
    steps: list[Passed] = []
    deciding: dict[str, list[Passed]] = {"allow": [], "deny": []}
    for direction, (gate, traced) in zip(_DIRECTIONS, both, strict=True):
        if gate is None or traced is None:
            continue
        passed = [Passed(step, direction) for step in traced]
        if (gate.tier, gate.policy, gate.rule) != (traced[-1].tier, traced[-1].policy, traced[-1].rule):
            raise EnginesDiffer(f"{question.packet}: {gate} but {traced[-1]}")
        steps += passed
        deciding[gate.verdict].append(passed[-1])
    return Answered(question, found.verdict, None, tuple(steps), tuple(deciding[found.verdict]))


def _way(question: Question, visits: list[Visit[Decision]]) -> Answered:
    assert question.table is not None
    steps: list[Passed] = []
    for visit in visits:
        traced = question.table.answer(visit.packet)
        if traced.verdict != visit.answer.verdict:
            raise EnginesDiffer(f"{visit.packet}: {visit.answer} but {traced}")
        hook = visit.packet.hook
        steps += [
            Passed(step, _STAGES.get(step.stage) or _HOOKS.get(hook, "egress")) for step in traced.trace
        ]
    last = visits[-1]
    allowed = tuple(passed for passed in steps if passed.step.action == "Allow")
    is_denied = last.answer.verdict == "deny"
    deciding = tuple(steps[-1:]) if is_denied or not allowed else allowed
    verdict: Verdict = last.answer.verdict if question.is_hook else ("deny" if is_denied else "allow")
    return Answered(question, verdict, last.packet.hook, tuple(steps), deciding)
