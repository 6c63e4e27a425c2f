"""The provider's lines in a user's requirements.txt."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mwaa_dr.aws.deploy.requirements_file import Requirement, merge, our_lines, remove
from airflow_provider_mwaa_dr.exceptions import RefusedError

INDEX, WHEEL = Requirement(version="1.2.0"), Requirement(version="1.2.0", from_plugins=True)
HASHED = Requirement(version="1.2.0", from_plugins=True, sha256="ab" * 32)
LINE = b"airflow-provider-mwaa-dr==1.2.0"
LINKS = b"--find-links /usr/local/airflow/plugins  # mwaa-dr"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", LINE + b"\n"),
        (b"pandas==2.2\n", b"pandas==2.2\n" + LINE + b"\n"),
        (b"pandas==2.2", b"pandas==2.2\n" + LINE),
        (b"pandas\r\nnumpy\r\n", b"pandas\r\nnumpy\r\n" + LINE + b"\r\n"),
        (b"a\nairflow-provider-mwaa-dr==0.9\nb\n", b"a\n" + LINE + b"\nb\n"),
        (b"a\r\nAirflow_Provider.MWAA-dr [x] >= 0.1 # by hand\r\nb", b"a\r\n" + LINE + b"\r\nb"),
        (b"airflow-provider-mwaa-dr @ file:///x.whl", LINE),
        (b"airflow-provider-mwaa-dr==1.2.0\na\nairflow-provider-mwaa-dr==1.2.0\n", LINE + b"\na\n"),
        (LINKS + b"\n" + LINE + b"\na\n", LINE + b"\na\n"),
        # Other packages with the same prefix.
        (b"airflow-provider-mwaa-dr-extra==1\n", b"airflow-provider-mwaa-dr-extra==1\n" + LINE + b"\n"),
        (b"airflow-provider-mwaa-dry==1\n", b"airflow-provider-mwaa-dry==1\n" + LINE + b"\n"),
        (b"# airflow-provider-mwaa-dr==0.9\n", b"# airflow-provider-mwaa-dr==0.9\n" + LINE + b"\n"),
        (b"airflow-provider-mwaa-dr==1.2.0.post1\n", LINE + b"\n"),
    ],
)
def test_the_line_is_merged(before: bytes, after: bytes) -> None:
    """The line is replaced in its place, or appended with the file's own line ends. The rest is unchanged."""
    assert merge(before, INDEX) == after
    assert merge(after, INDEX) is after


@pytest.mark.parametrize(
    "text",
    [
        LINE,
        b"a\n  airflow_provider_mwaa_dr == 1.2.0  # pinned by hand\nb\n",
        b"airflow-provider-mwaa-dr==1.2.0 \\\n    --hash=sha256:00\nb==1 --hash=sha256:11\n",
        b"airflow-provider-mwaa-dr==1.2.0; python_version >= '3.11'\n",
    ],
)
def test_a_line_that_requires_the_version_is_kept(text: bytes) -> None:
    """A user may have written it with hashes or a comment."""
    assert merge(text, INDEX) is text


def test_a_wheel_in_plugins_needs_find_links() -> None:
    """The provider adds a marked --find-links line, unless the user's file has one."""
    assert merge(b"a\n", WHEEL) == b"a\n" + LINKS + b"\n" + LINE + b"\n"
    theirs = b"--find-links /usr/local/airflow/plugins\na\n"
    merged = merge(theirs, WHEEL)
    assert merged == theirs + LINE + b"\n"
    assert remove(merged) == theirs
    assert merge(LINE + b"\na", WHEEL) == LINKS + b"\n" + LINE + b"\na"
    assert our_lines(merge(b"a\n", WHEEL)) == [LINKS.decode(), LINE.decode()]


@pytest.mark.parametrize(
    "text",
    [b"pandas==1 --hash=sha256:00\n", b"--require-hashes\n", b"pandas \\\n", b"pandas \\", "pandas\n".encode("utf-16")],
)
def test_a_file_to_which_no_line_can_be_added_is_refused(text: bytes) -> None:
    """The added line would break the installation, and MWAA would start without the package."""
    with pytest.raises(RefusedError) as refused:
        merge(text, INDEX)
    assert refused.value.advice


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [b"pandas==2.2", b"# \xe4", b"", b"-r more.txt", b"--find-links /usr/local/airflow/plugins", b"\x0c",
             b"\xef\xbb\xbfa", b"# ends \\", b"airflow-provider-mwaa-dr-extra"]
        ),
        st.binary(max_size=8).filter(lambda line: b"\n" not in line and b"\\" not in line),
    ),
    max_size=6,
)  # fmt: skip


@given(TEXTS, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.sampled_from([INDEX, WHEEL, HASHED]))
def test_remove_restores_the_original_file(
    lines: list[bytes], newline: bytes, ends: bool, requirement: Requirement
) -> None:
    """The bytes are the same as before, for any file. A second merge is a no-op."""
    text = newline.join(lines) + (newline if ends and lines else b"")
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    try:
        merged = merge(text, requirement)
    except RefusedError:  # the user has to change it
        return
    assert LINE in merged
    assert merge(merged, requirement) is merged
    assert remove(merged) == text
    assert remove(text) is text


def test_a_wheel_brings_its_hash_into_a_file_with_hashes() -> None:
    """Pip requires a hash in every line if one line has one. The hash of a rebuilt wheel replaces the one of before."""
    text = b"pandas==1 --hash=sha256:00\n"
    merged = merge(text, HASHED)
    assert merged == text + LINKS + b"\n" + LINE + b" --hash=sha256:" + b"ab" * 32 + b"\n"
    assert merge(merged, HASHED) is merged
    rebuilt = merge(merged, replace(HASHED, sha256="cd" * 32))
    assert rebuilt == merged.replace(b"ab" * 32, b"cd" * 32)
    assert remove(rebuilt) == text


@pytest.mark.parametrize(
    "line",
    [b"--no-index", b"--index-url https://mirror.example/simple", b"-i https://ana:secret@mirror.example/simple"],
)
def test_another_index_needs_the_wheel(line: bytes) -> None:
    """If pip does not find one line of the file, it installs nothing of it. A password is not shown."""
    text = line + b"\npandas==2.2\n"
    with pytest.raises(RefusedError, match="install nothing of the file") as caught:
        merge(text, INDEX)
    assert "--wheel FILE" in caught.value.advice
    assert "secret" not in str(caught.value)
    assert merge(text, WHEEL) == text + LINKS + b"\n" + LINE + b"\n"
    older = text + b"airflow-provider-mwaa-dr==1.1.0\n"
    assert merge(older, INDEX) == text + LINE + b"\n", "the index has had the package before"


def test_an_additional_index_is_no_other_index() -> None:
    """Pip still asks its own index, too."""
    text = b"--extra-index-url https://mirror.example/simple\n"
    assert merge(text, INDEX) == text + LINE + b"\n"
