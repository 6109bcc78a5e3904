"""Pages in folders and on branches: only what the lock names, and never over somebody else's."""

from __future__ import annotations

import html.parser
import json
import os
import shutil
import subprocess

import pytest
from click.testing import CliRunner
from made_up import judged, leaderboard, suite_of, train

from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.leaderboard.folder import folder as folders
from sslbench.leaderboard.output.files import files_of
from sslbench.leaderboard.publish.publishing import MARKER, FolderTarget, pages, publish

WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
       "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull, "HOME": "/nowhere"}  # fmt: skip


def built(root, *, extra=(), **suite):
    suite = suite_of(["moco"], **suite)
    folder = leaderboard(root, suite)
    folder = folders.add(root, suite, extra) if extra else folder
    board = folders.board_of(folder)
    folders.write(folder, board, files_of(board))
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    for name in ("one", "two"):
        built(root / name, summary=f"<b>{name}</b>")
    return root


@pytest.fixture
def boards(made, tmp_path):
    """A folder of two leaderboards, with other things in it that nobody asked to publish."""
    shutil.copytree(made, tmp_path / "boards")
    (tmp_path / "boards" / "one" / "secret.txt").write_text("mine")
    (tmp_path / "boards" / "notes").mkdir()
    (tmp_path / "boards" / "notes" / "todo.txt").write_text("mine")
    return tmp_path / "boards"


def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def run(*args):
    return CliRunner().invoke(program, ["leaderboard", "publish", *map(str, args)])


# ---- what is published -----------------------------------------------------------------------


def test_only_what_the_lock_names_is_published(boards):
    found = pages(boards)
    lock = folders.read_lock(boards / "one")
    expected = {"suite.yaml", "leaderboard.lock.json", *lock.records, *lock.generated}
    assert {name.removeprefix("one/") for name in found if name.startswith("one/")} == expected
    assert {name for name in found if "/" not in name} == {"index.html", ".nojekyll"}
    assert found["one/README.md"] == (boards / "one" / "README.md").read_bytes()


def test_one_leaderboard_is_published_as_it_lies(boards):
    found = pages(boards / "one")
    assert "README.md" in found
    assert not any(name.startswith("one/") for name in found)


def test_the_list_of_leaderboards_links_them_and_escapes_their_summaries(boards):
    text = pages(boards)["index.html"].decode()
    assert text.index('href="one/index.html"') < text.index('href="two/index.html"')
    assert "&lt;b&gt;one&lt;/b&gt;" in text
    tags = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(text)
    assert "b" not in tags
    assert "script" not in tags


def test_a_folder_whose_name_is_no_address_is_refused(boards):
    (boards / "two").rename(boards / "two & more")
    with pytest.raises(UserError, match="letters, digits"):
        pages(boards)


@pytest.mark.parametrize("name", ["README.md", "suite.yaml", "records"])
def test_a_lock_that_does_not_match_is_refused_and_nothing_is_written(boards, tmp_path, name):
    path = boards / "two" / name
    path = next(path.rglob("knn*.json")) if path.is_dir() else path
    path.write_text(path.read_text() + "\n")
    done = run(boards, "--to", tmp_path / "site")
    assert done.exit_code == 5
    assert "is not what its lock says" in done.stderr
    assert not (tmp_path / "site").exists()


def test_a_leaderboard_that_was_not_built_is_refused(tmp_path):
    leaderboard(tmp_path / "raw")
    with pytest.raises(UserError, match=r"has no leaderboard\.lock\.json"):
        pages(tmp_path / "raw")
    with pytest.raises(UserError, match="is not a leaderboard and has none in it"):
        pages(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", ".git/config"])
def test_a_lock_cannot_name_a_file_outside(boards, name):
    path = boards / "one" / folders.LOCK
    lock = json.loads(path.read_text())
    lock["generated"][name] = "0" * 64
    path.write_text(json.dumps(lock))
    with pytest.raises(UserError, match="which is not a file in its folder"):
        pages(boards / "one")


def test_a_link_is_not_followed_out_of_a_leaderboard(boards, tmp_path):
    path = boards / "one" / "README.md"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"names 'README\.md', which is not a file in its folder"):
        pages(boards / "one")


# ---- to a folder -----------------------------------------------------------------------------


def test_a_folder_gets_the_pages_and_a_second_time_nothing(boards, tmp_path):
    site = tmp_path / "site"
    first = run(boards, "--to", site)
    assert first.exit_code == 0
    assert {k: v for k, v in tree(site).items() if k != MARKER} == pages(boards)
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*")}
    again = run(boards, "--to", site)
    assert again.stdout == f"nothing to change in {site}\n"
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*")} == before


def test_a_dry_run_lists_what_would_change_and_writes_nothing(boards, tmp_path):
    site = tmp_path / "site"
    done = run(boards, "--to", site, "--dry-run")
    assert not site.exists()
    listed = {line.split()[1] for line in done.stdout.splitlines()[:-1]}
    assert listed == set(pages(boards))
    run(boards, "--to", site)
    before = tree(site)
    extra = train("swav", 0)
    built(boards / "one", extra=(extra,), summary="<b>one</b>")
    done = run(boards / "one", "--to", site, "--dry-run", "--json")
    said = json.loads(done.stdout)
    assert tree(site) == before
    assert "one/README.md" in said["removed"]
    assert "README.md" in said["added"]


def test_old_files_of_ours_go_and_files_of_others_stay(boards, tmp_path):
    site = tmp_path / "site"
    publish(pages(boards), FolderTarget(site))
    (site / "CNAME").write_text("example.org")
    (site / "two" / "mine.txt").write_text("mine")
    changes = publish(pages(boards / "one"), FolderTarget(site))
    assert not (site / "one").exists()
    assert tree(site).keys() == {*pages(boards / "one"), MARKER, "CNAME", "two/mine.txt"}
    assert "two/README.md" in changes.removed


@pytest.mark.parametrize("name", ["index.html", "one/README.md"])
def test_a_page_that_somebody_changed_is_never_replaced_or_removed(boards, tmp_path, name):
    site = tmp_path / "site"
    publish(pages(boards), FolderTarget(site))
    (site / name).write_text("mine now")
    before = tree(site)
    (boards / "one" / folders.LOCK).rename(boards / "one" / "kept")
    built_anew = {**pages(boards / "two"), "index.html": b"x"}
    with pytest.raises(UserError, match="was changed since it was published by sslbench"):
        publish(built_anew, FolderTarget(site))
    assert tree(site) == before


def test_a_folder_of_somebody_else_is_refused(boards, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("mine")
    done = run(boards, "--to", tmp_path / "home")
    assert done.exit_code == 2
    assert "is not empty and was not published by sslbench" in done.stderr
    assert tree(tmp_path / "home") == {"thesis.tex": b"mine"}
    done = run(boards, "--to", tmp_path / "home" / "thesis.tex")
    assert "is not a folder" in done.stderr


def test_a_file_that_came_later_where_a_page_is_to_be_is_refused(boards, tmp_path):
    site = tmp_path / "site"
    publish({"a.html": b"a"}, FolderTarget(site))
    (site / "b.html").write_text("mine")
    with pytest.raises(UserError, match=r"b\.html in .* was not published by sslbench"):
        publish({"a.html": b"a", "b.html": b"b"}, FolderTarget(site))


def test_nothing_is_written_through_a_link_or_by_a_forged_marker(tmp_path):
    site, outside = tmp_path / "site", tmp_path / "outside"
    publish({"a.html": b"a"}, FolderTarget(site))
    outside.mkdir()
    (outside / "x").write_bytes(b"x")
    (site / "sub").symlink_to(outside)
    with pytest.raises(UserError, match="is in the way"):
        publish({"sub/a.html": b"a"}, FolderTarget(site))
    marker = json.loads((site / MARKER).read_text())
    marker["files"]["../outside/x"] = marker["files"]["a.html"]
    (site / MARKER).write_text(json.dumps(marker))
    with pytest.raises(UserError, match="is not a marker that sslbench wrote"):
        publish({"a.html": b"a"}, FolderTarget(site))
    assert tree(outside) == {"x": b"x"}


def test_a_publication_that_was_broken_off_goes_on(tmp_path, monkeypatch):
    from sslbench.leaderboard.publish import publishing as room

    site = tmp_path / "site"
    publish({"a": b"1", "b": b"1", "gone": b"1"}, FolderTarget(site))
    write, count = room.write_atomic, iter(range(9))

    def broken(path, content):
        if next(count) == 2:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(room, "write_atomic", broken)
    with pytest.raises(KeyboardInterrupt):
        publish({"a": b"2", "b": b"2"}, FolderTarget(site))
    monkeypatch.undo()
    assert sorted(tree(site)[name] for name in "ab") == [b"1", b"2"]
    publish({"a": b"3", "b": b"3"}, FolderTarget(site))
    assert {k: v for k, v in tree(site).items() if k != MARKER} == {"a": b"3", "b": b"3"}


def test_a_site_of_a_later_sslbench_is_left_alone(tmp_path):
    publish({"a": b"1"}, FolderTarget(tmp_path))
    (tmp_path / MARKER).write_text('{"format": 9, "files": {}}')
    with pytest.raises(UserError, match="upgrade sslbench"):
        publish({"a": b"2"}, FolderTarget(tmp_path))


# ---- to a branch -----------------------------------------------------------------------------


@pytest.fixture
def git(tmp_path, monkeypatch):
    """A repository with a dirty working tree and a staged file; what git says in it."""
    for name, value in WHO.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "repository"
    home.mkdir()

    def call(*args, at=home):
        done = subprocess.run(["git", *args], cwd=at, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    call("init", "-q", "-b", "main")
    (home / "code.py").write_text("1")
    call("add", "code.py")
    call("commit", "-q", "-m", "first")
    (home / "code.py").write_text("2")
    (home / "staged.py").write_text("3")
    call("add", "staged.py")
    call.home = home
    return call


def test_a_branch_is_born_without_a_parent_and_the_working_tree_is_not_touched(boards, git):
    before = (
        git("status", "--porcelain"),
        git("rev-parse", "HEAD"),
        tree(git.home / ".git" / "refs"),
    )
    index = (git.home / ".git" / "index").read_bytes()
    done = run(boards, "--branch", "gh-pages", "--repository", git.home)
    assert done.exit_code == 0, done.stderr
    assert git("rev-list", "--count", "gh-pages") == "1"
    assert set(git("ls-tree", "-r", "--name-only", "gh-pages").split()) == {*pages(boards), MARKER}
    assert git("show", "gh-pages:one/README.md") == (boards / "one/README.md").read_text().strip()
    assert (git("status", "--porcelain"), git("rev-parse", "HEAD")) == before[:2]
    assert (git.home / ".git" / "index").read_bytes() == index
    assert before[2].items() <= tree(git.home / ".git" / "refs").items()


def test_a_second_time_there_is_no_commit_and_then_one_for_what_changed(boards, git):
    to = ("--branch", "gh-pages", "--repository", git.home)
    run(boards, *to)
    first = git("rev-parse", "gh-pages")
    assert "nothing to change" in run(boards, *to).stdout
    assert git("rev-parse", "gh-pages") == first
    built(boards / "one", extra=(train("swav", 0),), summary="<b>one</b>")
    dry = run(boards, *to, "--dry-run")
    assert "changed  one/README.md" in dry.stdout
    assert git("rev-parse", "gh-pages") == first
    done = run(boards, *to, "--json")
    assert git("rev-parse", "gh-pages") == json.loads(done.stdout)["commit"]
    assert git("rev-parse", "gh-pages^") == first
    assert "two/" not in git("diff", "--name-only", first, "gh-pages")


def test_what_others_put_on_the_branch_stays_and_what_they_changed_is_not_replaced(boards, git):
    to = ("--branch", "gh-pages", "--repository", git.home)
    run(boards, *to)
    git("worktree", "add", "-q", git.home.parent / "tree", "gh-pages")
    elsewhere = git.home.parent / "tree"
    (elsewhere / "CNAME").write_text("example.org")
    git("add", "CNAME", at=elsewhere)
    git("commit", "-q", "-m", "name", at=elsewhere)
    git("checkout", "-q", "--detach", at=elsewhere)
    assert run(boards / "one", *to).exit_code == 0
    assert "CNAME" in git("ls-tree", "--name-only", "gh-pages").split()
    git("checkout", "-q", "gh-pages", at=elsewhere)
    (elsewhere / "README.md").write_text("mine")
    git("commit", "-q", "-a", "-m", "mine", at=elsewhere)
    git("checkout", "-q", "--detach", at=elsewhere)
    before = git("rev-parse", "gh-pages")
    done = run(boards, *to)
    assert done.exit_code == 2
    assert "README.md in the branch gh-pages" in done.stderr
    assert git("rev-parse", "gh-pages") == before


def test_a_branch_with_other_things_on_it_is_refused(boards, git):
    before = git("rev-parse", "main")
    done = run(boards, "--branch", "main", "--repository", git.home)
    assert done.exit_code == 2
    assert "is not empty and was not published by sslbench" in done.stderr
    assert git("rev-parse", "main") == before


def test_a_branch_checked_out_with_local_changes_is_refused_and_a_clean_one_follows(boards, git):
    to = ("--branch", "gh-pages", "--repository", git.home)
    run(boards, *to)
    elsewhere = git.home.parent / "tree"
    git("worktree", "add", "-q", elsewhere, "gh-pages")
    (elsewhere / "index.html").write_text("half-way through an edit")
    before = git("rev-parse", "gh-pages")
    for more in ((), ("--dry-run",)):
        done = run(boards / "one", *to, *more)
        assert done.exit_code == 2
        assert f"is checked out in {elsewhere} with local changes (index.html)" in done.stderr
    assert git("rev-parse", "gh-pages") == before
    assert (elsewhere / "index.html").read_text() == "half-way through an edit"
    git("checkout", "-q", "index.html", at=elsewhere)
    (elsewhere / "README.md").write_text("not even added, and in the way")
    assert "with local changes (README.md)" in run(boards / "one", *to).stderr
    (elsewhere / "README.md").unlink()
    assert run(boards / "one", *to).exit_code == 0
    assert git("status", "--porcelain", at=elsewhere) == ""
    assert (elsewhere / "README.md").exists()
    assert not (elsewhere / "two").exists()


def test_only_push_pushes_and_it_starts_from_what_is_there(boards, git, tmp_path):
    remote = tmp_path / "remote.git"
    git("init", "-q", "--bare", remote)
    git("remote", "add", "origin", str(remote))
    to = ("--branch", "gh-pages", "--repository", git.home)
    run(boards, *to)
    assert git("branch", "--list", at=remote) == ""
    assert run(boards, *to, "--push", "origin").exit_code == 0
    pushed = git("rev-parse", "gh-pages", at=remote)
    assert pushed == git("rev-parse", "gh-pages")
    git("branch", "-q", "-D", "gh-pages")
    assert run(boards / "one", *to, "--push", "origin").exit_code == 0
    assert git("rev-parse", "gh-pages^", at=remote) == pushed
    done = run(boards, *to, "--push", "nowhere")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: git push")


@pytest.mark.parametrize("name", ["-f", "a..b", "a b", "refs/../x", "x.lock", ""])
def test_a_name_that_no_branch_can_have_is_refused(boards, git, name):
    done = run(boards, f"--branch={name}", "--repository", git.home)
    assert done.exit_code == 2
    assert "cannot be the name of a branch" in done.stderr
    assert git("branch", "--list").split() == ["*", "main"]


def test_where_to_must_be_said_once_and_the_repository_must_be_one(boards, tmp_path):
    assert "--to FOLDER or --branch NAME" in run(boards).stderr
    assert "go with --branch" in run(boards, "--to", tmp_path / "x", "--push", "origin").stderr
    done = run(boards, "--branch", "gh-pages", "--repository", tmp_path)
    assert done.exit_code == 2
    assert "not a git repository" in done.stderr


def test_a_number_that_cannot_be_is_not_published(tmp_path):
    cell = train("moco", 0)
    suite = suite_of(["moco"], evaluators=("knn",))
    folder = folders.add(tmp_path / "a", suite, [cell, judged(cell, "knn", {"top1": 1.7})])
    board = folders.board_of(folder)
    folders.write(folder, board, files_of(board))
    done = run(tmp_path / "a", "--to", tmp_path / "site")
    assert done.exit_code == 5
    assert "top1 is 1.7, a fraction outside" in done.stderr
    assert not (tmp_path / "site").exists()
