"""Which model of DynamoDB table a pair of regions allows."""

from __future__ import annotations

from dataclasses import dataclass

REGION_SETS = (
    frozenset({"us-east-1", "us-east-2", "us-west-2"}),
    frozenset({"eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1"}),
    frozenset({"ap-northeast-1", "ap-northeast-2", "ap-northeast-3"}),
)
"""
A global table with strong consistency keeps its three regions within one of these.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-dynamodb-globaltable-globaltablewitness.html
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableModel:
    """
    How the state table of two regions is kept.

    :param witness: the third region of a strongly consistent table; empty where there is none, and consistency is
        eventual.
    :param reason: why, in a sentence without a full stop.
    """

    witness: str
    reason: str

    @property
    def is_strong(self) -> bool:
        """Whether a conditional write is a compare-and-set in all regions at once."""
        return bool(self.witness)


def table_model(first: str, second: str) -> TableModel:
    """Return the strongest model that two regions allow."""
    for region_set in REGION_SETS:
        if {first, second} <= region_set:
            # The nearest name: us-west-2 for the two in us-east, a neighbour in Europe.
            witness = min(region_set - {first, second})
            return TableModel(witness=witness, reason=f"{first}, {second} and the witness {witness} are one region set")
    return TableModel(
        witness="",
        reason=f"strong consistency needs three regions of one set, and no set holds both {first} and {second}",
    )
