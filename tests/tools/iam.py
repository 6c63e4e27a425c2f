"""
An evaluator of IAM policies, for tests.

It is not AWS. It implements the rules of AWS's documentation for the elements that our policies use, so that a test can
tell which call a policy allows, and what fails without one of its permissions. It cannot tell what AWS really sends as
condition keys, what other policies of an account deny, or what a KMS key's policy allows.

Rules:

- A call is denied unless a statement allows it. An explicit denial wins.
  https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
- ``*`` in actions, resources and the values of ``StringLike`` stands for any characters, also none, and ``?`` for one.
  Actions are not case-sensitive.
- All operators of a condition, and all of their keys, must match. One of a key's values must match; for a negated
  operator, none may.
- A key that the call does not have: an operator does not match, a negated operator and ``...IfExists`` match.
  ``ForAllValues`` matches, ``ForAnyValue`` does not.
  https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
  https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html

Anything else in a policy (NotAction, NotResource, Principal, variables, other operators) is an error.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

Document = Mapping[str, Any]

_ELEMENTS = {"Sid", "Effect", "Action", "Resource", "Condition"}
_OPERATOR = re.compile(
    r"(?:(?P<set>ForAllValues|ForAnyValue):)?"
    r"(?P<test>StringEquals|StringNotEquals|StringLike|StringNotLike|Bool|Null)"
    r"(?P<optional>IfExists)?"
)


class UnsupportedPolicyError(Exception):
    """A policy has something that the evaluator does not implement."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """
    One request as IAM evaluates it.

    :param context: values of each condition key of the request.
    :param doing: what made the request, for messages.
    """

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    doing: str = ""


@dataclass(frozen=True, kw_only=True)
class Permission:
    """
    One part of a statement that can be removed: an action, a resource, or one allowed value of a condition.

    :param kind: ``Action``, ``Resource``, or operator and key of a condition.
    """

    sid: str
    kind: str
    value: str


def is_allowed(documents: Sequence[Document], call: Call) -> bool:
    """
    Whether a principal with these policies may make the call.

    :raises UnsupportedPolicyError: a policy has something that the evaluator does not implement.
    """
    effects = {statement["Effect"] for statement in _statements(documents) if applies(statement, call)}
    return effects == {"Allow"}


def applies(statement: Mapping[str, Any], call: Call) -> bool:
    """Whether a statement is about the call. :raises UnsupportedPolicyError: an element is not implemented."""
    if unknown := statement.keys() - _ELEMENTS:
        raise UnsupportedPolicyError(f"{statement.get('Sid')}: {', '.join(sorted(unknown))}")
    if statement["Effect"] not in {"Allow", "Deny"}:
        raise UnsupportedPolicyError(f"{statement.get('Sid')}: Effect {statement['Effect']}")
    return (
        any(_like(pattern.lower(), call.action.lower()) for pattern in _listed(statement["Action"]))
        and any(_like(pattern, call.resource) for pattern in _listed(statement["Resource"]))
        and all(
            _condition(operator, _listed(wanted), call.context.get(key))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def permissions(document: Document) -> Iterator[Permission]:
    """Yield everything that can be removed from a policy; each value of a list on its own."""
    for statement in document["Statement"]:
        sid = statement["Sid"]
        for kind in ("Action", "Resource"):
            for value in _listed(statement[kind]):
                yield Permission(sid=sid, kind=kind, value=value)
        for operator, keys in statement.get("Condition", {}).items():
            for key, values in keys.items():
                for value in _listed(values):
                    yield Permission(sid=sid, kind=f"{operator} {key}", value=value)


def without(document: Document, permission: Permission) -> Document:
    """
    Return a policy without one permission. A list that becomes empty matches nothing, so its statement is removed, too.
    """
    changed = copy.deepcopy(dict(document))
    for statement in changed["Statement"]:
        if statement["Sid"] != permission.sid:
            continue
        if permission.kind in {"Action", "Resource"}:
            place, key = statement, permission.kind
        else:
            operator, key = permission.kind.split(" ")
            place = statement["Condition"][operator]
        left = [value for value in _listed(place[key]) if value != permission.value]
        if left:
            place[key] = left
        else:
            changed["Statement"].remove(statement)
        return changed
    raise KeyError(permission)


def _statements(documents: Sequence[Document]) -> Iterator[Mapping[str, Any]]:
    for document in documents:
        if document["Version"] != "2012-10-17":
            raise UnsupportedPolicyError(f"Version {document['Version']}")
        yield from document["Statement"]


def _condition(operator: str, wanted: Sequence[str], found: tuple[str, ...] | None) -> bool:
    match = _OPERATOR.fullmatch(operator)
    if match is None or (match["test"] == "Null" and (match["set"] or match["optional"])):
        raise UnsupportedPolicyError(f"condition operator {operator}")
    test = match["test"]
    if test == "Null":
        (text,) = wanted
        return (found is None) is (text == "true")
    is_negated = "Not" in test
    if found is None:
        return match["set"] == "ForAllValues" or (
            match["set"] is None and (is_negated or match["optional"] is not None)
        )

    def matches(value: str) -> bool:
        hits = (_like(each, value) if "Like" in test else each == value for each in wanted)
        return any(hits) is not is_negated

    if match["set"] is None:
        if len(found) != 1:
            raise UnsupportedPolicyError(f"{operator} on a key with the values {found}")
        return matches(found[0])
    return all(map(matches, found)) if match["set"] == "ForAllValues" else any(map(matches, found))


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    values = [value] if isinstance(value, str) else value
    for each in values:
        if "${" in each:
            raise UnsupportedPolicyError(f"variable in {each}")
    return values


def _like(pattern: str, text: str) -> bool:
    return _regex(pattern).fullmatch(text) is not None


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    parts = (".*" if each == "*" else "." if each == "?" else re.escape(each) for each in pattern)
    return re.compile("".join(parts), re.DOTALL)
