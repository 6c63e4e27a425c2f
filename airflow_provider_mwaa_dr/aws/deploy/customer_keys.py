"""
Customer-managed KMS keys of existing tables and buckets.

DynamoDB and S3 use such a key with the permissions of the caller. So every user of a table or bucket needs permissions
on its key. Keys that AWS manages, and keys that AWS owns, need none.
https://docs.aws.amazon.com/kms/latest/developerguide/services-dynamodb.html
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from airflow_provider_mwaa_dr.aws.deploy.existing_tables import find_table
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.exceptions import AwsError, AwsMissingError, RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerKeys:
    """
    The keys that a policy has to name.

    :param arns: sorted. Also keys that could not be examined: a permission on a key that AWS manages has no effect.
    :param unknown: why keys could not be examined, a sentence each.
    """

    arns: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def lines(self, *, account: str, with_policies: bool) -> list[str]:
        """
        Return what a user has to know about the keys of a table.

        :param account: the account of the environments.
        """
        lines = list(self.unknown)
        for arn in self.arns:
            how = (
                "the stack has a policy for them, and attaches it to the execution roles"
                if with_policies
                else "mwaa-dr deploy --print-policies prints them as using_table_keys"
            )
            lines.append(f"its users need permissions on its KMS key {arn}: {how}")
            if arn.split(":")[4] != account:
                lines.append(f"  WARNING: the key's own policy must allow account {account} to use it")
        return lines


def customer_keys(aws: Aws, keys: Iterable[str], *, region: str = "") -> CustomerKeys:
    """
    Return those of *keys* that a customer manages.

    :param keys: ARNs; with *region* also ids and aliases of keys in it.
    """
    arns: set[str] = set()
    unknown: list[str] = []
    for key in sorted(set(keys)):
        where = key.split(":")[3] if key.startswith("arn:") else region
        try:
            found = aws("kms", where).call_idempotent("describe_key", KeyId=key)["KeyMetadata"]
        except AwsError as error:
            is_usable = ":key/" in key
            so = "the policies allow to use it" if is_usable else f"add a permission to use it: {error.advice}"
            unknown.append(f"whether a customer manages the key {key} is unknown ({error.message.rstrip('.')}); {so}")
            if is_usable:
                arns.add(key)
            continue
        if found.get("KeyManager") == "CUSTOMER":
            arns.add(found["Arn"])
    return CustomerKeys(arns=tuple(sorted(arns)), unknown=tuple(unknown))


def keys_of_table(aws: Aws, name: str, regions: Sequence[str]) -> CustomerKeys:
    """Return the customer-managed keys of the table *name*, if it exists in one of *regions*."""
    try:
        table = find_table(aws, name, regions)
    except (AwsError, RefusedError) as error:
        return CustomerKeys(unknown=(f"the KMS key of the table {name} is unknown ({error.message.rstrip('.')})",))
    return CustomerKeys() if table is None else customer_keys(aws, table.keys)


def keys_of_buckets(aws: Aws, buckets: Iterable[tuple[str, str]]) -> CustomerKeys:
    """
    Return the customer-managed keys with which S3 encrypts new objects.

    :param buckets: region and name of each bucket.
    """
    found = [_of_bucket(aws, region, bucket) for region, bucket in buckets]
    return CustomerKeys(
        arns=tuple(sorted({arn for each in found for arn in each.arns})),
        unknown=tuple(text for each in found for text in each.unknown),
    )


def _of_bucket(aws: Aws, region: str, bucket: str) -> CustomerKeys:
    try:
        answer = aws("s3", region).call_idempotent("get_bucket_encryption", Bucket=bucket)
    except AwsError as error:
        if error.code == "ServerSideEncryptionConfigurationNotFoundError" or isinstance(error, AwsMissingError):
            return CustomerKeys()
        return CustomerKeys(unknown=(f"the key of the bucket {bucket} is unknown ({error.message.rstrip('.')})",))
    rules = answer["ServerSideEncryptionConfiguration"].get("Rules", ())
    defaults = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules]
    # Without a key, S3 uses the key aws/s3, which AWS manages.
    return customer_keys(aws, [each["KMSMasterKeyID"] for each in defaults if "KMSMasterKeyID" in each], region=region)
