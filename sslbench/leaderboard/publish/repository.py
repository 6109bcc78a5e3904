"""Reads and writes a git repository without a checkout, by git's plumbing commands."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError

HEADS = "refs/heads/"
PLAIN = ("100644", "100755")  # modes of plain files; links have others
# A git hook that runs us sets these; they would point git to another repository or index.
INHERITED = {
    f"GIT_{name}"
    for name in ("DIR", "WORK_TREE", "INDEX_FILE", "OBJECT_DIRECTORY", "COMMON_DIR", "PREFIX")
}


@dataclass(frozen=True)
class Blob:
    mode: str
    id: str


class Repository:
    """The git repository that contains `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise UserError(f"there is no folder {root}; name one that is a git repository")
        self._git("rev-parse", "--git-dir")

    def commit(self, revision: str) -> str | None:
        """Id of the commit of a revision; None if there is none."""
        wanted = f"{revision}^{{commit}}"
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", wanted)
        return self._git(*asked, fails=True) or None

    def files(self, commit: str, folder: str = "") -> dict[str, Blob]:
        """Files, links and modules of a commit, by path from the repository's root."""
        within = ("--", f"{folder}/") if folder else ()
        listed = self._git("ls-tree", "-r", "-z", "--full-tree", commit, *within)
        found = {}
        for line in filter(None, listed.split("\0")):
            about, _, path = line.partition("\t")
            mode, _, blob = about.split()
            found[path] = Blob(mode, blob)
        return found

    def contents(self, blobs: Iterable[Blob]) -> list[bytes]:
        asked = "".join(f"{blob.id}\n" for blob in blobs)
        answer = self._run("cat-file", "--batch", given=asked.encode()).stdout
        found = []
        while answer:
            head, _, rest = answer.partition(b"\n")
            size = int(head.split()[2])
            found.append(rest[:size])
            answer = rest[size + 1 :]
        return found

    def check_branch(self, name: str) -> None:
        named = self._run("check-ref-format", HEADS + name, fails=True)
        if named.returncode or name.startswith("-"):
            raise UserError(f"{name!r} cannot be the name of a branch; try gh-pages")

    def checkout_of(self, branch: str) -> Path | None:
        """The working tree in which a branch is checked out, if any."""
        path = ""
        for line in self._git("worktree", "list", "--porcelain").splitlines():
            key, _, value = line.partition(" ")
            path = value if key == "worktree" else path
            if key == "branch" and value == HEADS + branch:
                return Path(path)
        return None

    def write(self, files: Mapping[str, bytes | None], parent: str | None, *, message: str) -> str:
        """Makes a commit: `parent` with these files changed (None: removed). No branch is moved."""
        kept = {path: content for path, content in files.items() if content is not None}
        with tempfile.TemporaryDirectory() as scratch:
            index = Path(scratch) / "index"
            if parent:
                self._git("read-tree", parent, index=index)
            told = [f"0 {'0' * 40}\t{path}\0" for path in files if path not in kept]
            for path, blob in zip(kept, self._blobs(kept.values(), Path(scratch)), strict=True):
                told.append(f"{PLAIN[0]} {blob}\t{path}\0")
            self._git("update-index", "-z", "--index-info", index=index, given="".join(told))
            tree = self._git("write-tree", index=index)
        parents = ("-p", parent) if parent else ()
        return self._git("commit-tree", tree, *parents, "-m", message)

    def _blobs(self, contents: Iterable[bytes], scratch: Path) -> list[str]:
        """Adds contents to the repository and returns their ids."""
        places = []
        for number, content in enumerate(contents):
            places.append(scratch / str(number))
            places[-1].write_bytes(content)
        given = "".join(f"{place}\n" for place in places)
        return self._git("hash-object", "-w", "--no-filters", "--stdin-paths", given=given).split()

    def move(self, branch: str, commit: str, parent: str | None) -> None:
        """Moves the branch from `parent` to `commit`; fails if somebody moved it meanwhile.

        If it is checked out, that working tree follows.
        """
        before = parent if self.commit(HEADS + branch) else None
        message = ("-m", "sslbench leaderboard publish")
        self._git("update-ref", *message, HEADS + branch, commit, before or "0" * len(commit))
        checkout = self.checkout_of(branch)
        if checkout:
            trees = (before, commit) if before else (commit,)
            self._git("read-tree", "-m", "-u", *trees, at=checkout)

    def check_clean(self, branch: str, added: Iterable[str]) -> None:
        """UserError if a working tree of the branch would lose local changes."""
        checkout = self.checkout_of(branch)
        if checkout is None:
            return
        status = self._git("status", "--porcelain", "--untracked-files=no", at=checkout)
        changed = [line.split(maxsplit=1)[-1] for line in status.splitlines()]
        blocked = [path for path in added if os.path.lexists(checkout / path)]
        if changed or blocked:
            raise UserError(
                f"the branch {branch} is checked out in {checkout} with local changes "
                f"({(changed + blocked)[0]}); commit or move them, or check another branch out there"
            )

    def push(self, remote: str, branch: str) -> None:
        reference = HEADS + branch
        self._git("push", "--quiet", "--", remote, f"{reference}:{reference}")

    def _git(self, *args: str, given: str = "", **how: Any) -> str:
        """Runs git and returns its output; "" if it fails and `fails` allows that."""
        done = self._run(*args, given=given.encode("utf-8", "surrogateescape"), **how)
        return "" if done.returncode else done.stdout.decode("utf-8", "surrogateescape").strip()

    def _run(
        self,
        *args: str,
        given: bytes = b"",
        fails: bool = False,  # whether it may
        index: Path | None = None,
        at: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        surroundings = {k: v for k, v in os.environ.items() if k not in INHERITED}
        surroundings |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
        if index:
            surroundings["GIT_INDEX_FILE"] = str(index)
        try:
            done = subprocess.run(
                ["git", "-C", str(at or self.root), *args],
                input=given,
                capture_output=True,
                env=surroundings,
                check=False,
            )
        except FileNotFoundError as error:
            raise UserError("git was asked for and is not installed; install it") from error
        if done.returncode and not fails:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [
                "no reason given"
            ]
            raise UserError(f"git {args[0]} in {at or self.root} failed: {' '.join(said[-3:])}")
        return done
