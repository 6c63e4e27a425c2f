"""Which consistency a DynamoDB table can have in a pair of regions."""

from __future__ import annotations

from dataclasses import dataclass

REGION_SETS = (
    frozenset({"us-east-1", "us-east-2", "us-west-2"}),
    frozenset({"eu-west-1", "eu-west-2", "eu-west-3", "eu-central-1"}),
    frozenset({"ap-northeast-1", "ap-northeast-2", "ap-northeast-3"}),
)
"""
The three regions of a global table with strong consistency must be in one of these sets.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-dynamodb-globaltable-globaltablewitness.html
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableModel:
    """
    The model of the state table for two regions.

    :param witness: the third region of a table with strong consistency; empty for eventual consistency.
    :param reason: the reason, a sentence without a full stop.
    """

    witness: str
    reason: str

    @property
    def is_strong(self) -> bool:
        """Whether a conditional write is a compare-and-set across all regions."""
        return bool(self.witness)


def table_model(first: str, second: str) -> TableModel:
    """Return the model with the strongest consistency for two regions."""
    for region_set in REGION_SETS:
        if {first, second} <= region_set:
            # The first name in order, for example us-west-2 for the two regions in us-east.
            witness = min(region_set - {first, second})
            return TableModel(witness=witness, reason=f"{first}, {second} and the witness {witness} are one region set")
    return TableModel(
        witness="",
        reason=f"strong consistency needs three regions of one set, and no set holds both {first} and {second}",
    )
