"""
Copy DAGs to both sites of a DR set, wait until both have parsed them, and check the set: the script of the Action.

``python deploy_dags.py FOLDER``, with the environment variables ``DR_*`` of the command line, and credentials. The
script copies to the standby first: if it stops, the active site keeps its files. It needs the distribution
``mwaa-dr-cli``.

Exit code: that of ``mwaa-dr check --json`` (3 if a check failed); 1 if a site has not parsed the files in time.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from airflow_provider_mwaa_dr.aws.deploy.bucket import Bucket
from airflow_provider_mwaa_dr.aws.mwaa.control_plane import ControlPlane, DeployedEnvironment
from airflow_provider_mwaa_dr.aws.service import Aws
from airflow_provider_mwaa_dr.cli import main as mwaa_dr
from airflow_provider_mwaa_dr.cli.runtime import Runtime, read_config, system_runtime
from airflow_provider_mwaa_dr.core.environments import environment_names
from airflow_provider_mwaa_dr.core.ports import INVENTORIES, StateStore
from airflow_provider_mwaa_dr.exceptions import DRError

POLL_S = 10.0
SAY_S = 60.0


def local_files(folder: Path) -> dict[str, bytes]:
    """Return the files of *folder* by their path in it, without hidden ones and bytecode."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts[:-1]):
            found["/".join(parts)] = path.read_bytes()
    return found


def copy(aws: Aws, environment: DeployedEnvironment, files: Mapping[str, bytes], *, delete: bool) -> int:
    """Copy what differs to the DAGs folder of one environment; return the number of changed objects."""
    bucket = Bucket(aws, environment.region, environment.bucket)
    prefix = f"{environment.dags.rstrip('/')}/"
    changed = 0
    for name, content in files.items():
        found = bucket.get(prefix + name)
        if found is None or found.content != content:
            bucket.put(prefix + name, content)
            changed += 1
    if delete:
        for key in keys(aws, environment, prefix):
            if key.removeprefix(prefix) not in files:
                bucket.delete(key)
                changed += 1
    return changed


def keys(aws: Aws, environment: DeployedEnvironment, prefix: str) -> list[str]:
    """Return the keys of the objects below *prefix*."""
    s3, found, token = aws("s3", environment.region), [], {}
    while True:
        page = s3.call_idempotent("list_objects_v2", Bucket=environment.bucket, Prefix=prefix, **token)
        found += [row["Key"] for row in page.get("Contents", ()) if not row["Key"].endswith("/")]
        if not page.get("IsTruncated"):
            return found
        token = {"ContinuationToken": page["NextContinuationToken"]}


def missing(store: StateStore, site: str, files: Mapping[str, bytes], not_dags: Sequence[str]) -> list[str]:
    """
    Return what the inventory of *site* does not have yet, a text each; empty if the site has parsed all files.

    The inventory has the digest of the file of each DAG. A DAG from another file is an old one. A file that Airflow's
    safe mode takes for a DAG file has to be the file of a DAG, or an import error, which the check then reports.
    """
    inventory = store.get(INVENTORIES, site)
    if inventory is None:
        return ["no inventory"]
    digests = {
        hashlib.md5(content, usedforsecurity=False).hexdigest()[:16]: name
        for name, content in files.items()
        if name.endswith(".py")
    }
    parsed = {facts.source for facts in inventory.dags.values()}
    old = sorted(dag_id for dag_id, facts in inventory.dags.items() if facts.source not in digests)
    expected = {
        digest: name
        for digest, name in digests.items()
        if b"dag" in files[name].lower()
        and b"airflow" in files[name].lower()
        and name not in inventory.import_errors
        and not any(fnmatch(name, pattern) for pattern in not_dags)
    }
    unseen = sorted(name for digest, name in expected.items() if digest not in parsed)
    return [*(f"DAG {dag_id} from another file" for dag_id in old), *(f"file {name}" for name in unseen)]


def main(argv: Sequence[str] | None = None, *, runtime: Runtime | None = None) -> int:
    """Copy, wait and check. Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with the DAGs")
    parser.add_argument("--delete", action="store_true", help="delete files that the folder does not have")
    parser.add_argument("--wait-minutes", type=float, default=15.0, metavar="N")
    parser.add_argument("--not-dags", default="", metavar="PATTERNS", help="files without a DAG, separated by commas")
    parser.add_argument("--accept", default="", metavar="CHECKS", help="checks to accept, separated by commas")
    args = parser.parse_args(argv)
    runtime = runtime or system_runtime()

    def say(text: str) -> None:
        print(text, file=runtime.stderr, flush=True)

    files = local_files(args.folder)
    if not files:
        say(f"{args.folder} has no files.")
        return 2
    try:
        config = read_config(runtime.environ)
        store, aws = runtime.make_store(config), Aws(runtime.clock, runtime.boto3_session)
        sites = environment_names(store, config.environments)
        active = store.read().active_region
        for site in sorted(sites.all, key=lambda each: each.id == active):  # the standby first
            environment = ControlPlane(aws, site).describe()
            changed = copy(aws, environment, files, delete=args.delete)
            say(f"{site.id}: {changed} of {len(files)} files changed in {environment.bucket}/{environment.dags}")
        if not _wait(runtime, store, sorted(sites), files, args, say):
            return 1
    except DRError as error:
        say(f"{error}")
        return 1
    accepted = [word for each in args.accept.split(",") if each.strip() for word in ("--accept", each.strip())]
    return mwaa_dr(["check", "--json", *accepted], runtime=runtime)


def _wait(
    runtime: Runtime,
    store: StateStore,
    sites: Sequence[str],
    files: Mapping[str, bytes],
    args: argparse.Namespace,
    say: Callable[[str], object],
) -> bool:
    """Wait until the inventories of both sites have all files; return whether they have."""
    clock = runtime.clock
    not_dags = [each.strip() for each in args.not_dags.split(",") if each.strip()]
    deadline = clock.monotonic() + 60 * args.wait_minutes
    said_at = float("-inf")
    while True:
        left = {site: found for site in sites if (found := missing(store, site, files, not_dags))}
        if not left:
            say(f"{' and '.join(sites)} have parsed {len(files)} files")
            return True
        now = clock.monotonic()
        if now >= deadline or now - said_at >= SAY_S:
            said_at = now
            for site, found in left.items():
                more = f" and {len(found) - 5} more" if len(found) > 5 else ""
                say(f"{site} has not parsed: {', '.join(found[:5])}{more}")
        if now >= deadline:
            say("Name files without a DAG with --not-dags, or wait longer with --wait-minutes.")
            return False
        clock.sleep(POLL_S)


if __name__ == "__main__":
    sys.exit(main())
