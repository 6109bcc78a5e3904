"""The workflows for submissions: what they run exists, and nothing of a submission is trusted."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile

import click
import pytest
import yaml
from click.testing import CliRunner
from made_up import judged, train
from test_publish import built

from sslbench.cli.app import program
from sslbench.leaderboard.publish.submission import templates


def parsed():
    # YAML 1.1 takes `on` for a boolean
    return {name: yaml.safe_load(text) for name, text in templates().items()}


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


SHELL = [
    (name, step["run"]) for name, flow in parsed().items() for step in steps(flow) if "run" in step
]


def test_workflows_are_printed_and_written_and_never_over_another_text(tmp_path):
    def workflow(*args):
        return CliRunner().invoke(program, ["leaderboard", "workflow", *map(str, args)])

    printed = list(yaml.safe_load_all(workflow().stdout))
    assert [flow["name"] for flow in printed if flow] == [f["name"] for f in parsed().values()]
    for _ in range(2):
        assert workflow("--out", tmp_path).exit_code == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == templates()
    (tmp_path / "leaderboard-publish.yml").write_text("mine")
    (tmp_path / "leaderboard-check.yml").unlink()
    done = workflow("--out", tmp_path)
    assert done.exit_code == 2
    assert "is there with another text" in done.stderr
    assert not (tmp_path / "leaderboard-check.yml").exists()


def test_what_others_wrote_is_run_without_rights_and_never_pasted_into_a_script():
    for name, flow in parsed().items():
        triggers = flow[True]
        assert "pull_request_target" not in triggers
        assert flow["permissions"] in ({}, {"contents": "read"}), name
        if "pull_request" in triggers:
            assert all("permissions" not in job for job in flow["jobs"].values())
            assert "secrets." not in templates()[name]
    for name, script in SHELL:
        assert "${{" not in script, name
    for _, flow in parsed().items():
        for step in steps(flow):
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
            if str(step.get("uses", "")).startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_the_comment_runs_nothing_of_the_submission():
    comment = parsed()["leaderboard-comment.yml"]
    assert comment[True]["workflow_run"]["workflows"] == [parsed()["leaderboard-check.yml"]["name"]]
    used = [step["uses"].partition("@")[0] for step in steps(comment) if "uses" in step]
    assert used == ["actions/download-artifact"]
    assert not any("sslbench " in script for name, script in SHELL if "comment" in name)


@pytest.mark.parametrize(("name", "script"), SHELL)
def test_scripts_are_bash(name, script):
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_of_ours_in_a_workflow_exists_with_its_options():
    found = set()
    for _, script in SHELL:
        whole = script.replace("\\\n", " ")
        for words in re.findall(r"^\s*(?:python -m )?sslbench (.+)$", whole, re.MULTILINE):
            words = re.split(r"\s(?:\|\||>|\|)", words)[0].split()
            command, context = program, click.Context(program)
            while isinstance(command, click.Group):
                name = words.pop(0)
                command = command.get_command(context, name)
                assert command is not None, name
            options = {o for p in command.params for o in p.opts}
            assert {w for w in words if w.startswith("--")} <= options
            found.add(command.name)
    assert found == {"diff", "validate", "verify", "build", "publish"}


def step(workflow, name, at, **env):
    """Runs the script of one step as Actions would."""
    (script,) = [s["run"] for s in steps(parsed()[workflow]) if s.get("name") == name]
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        env={**os.environ, "PATH": f"{at.parent / 'bin'}:{os.environ['PATH']}", **env},
        cwd=at,
        capture_output=True,
        text=True,
        check=False,
    )


def program_of(path, script):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


@pytest.mark.slow
def test_the_check_finds_what_changed_compares_it_and_asks_for_a_bundle(tmp_path):
    boards = tmp_path / "boards"
    for name in ("one", "two"):
        built(boards / name)
    program_of(tmp_path / "bin" / "sslbench", f'exec {sys.executable} -m sslbench "$@"')
    base, new = (tmp_path / "ci" / side / "leaderboards" for side in ("base", "submission"))
    shutil.copytree(boards, base)
    shutil.copytree(boards, new)
    extra = train("swav", 0)
    found = (extra, judged(extra, "knn", {"top1": 0.99}))
    built(new / "one", extra=found)
    shutil.copytree(new / "two", new / "new")

    def run_step(name):
        env = {"NUMBER": "7", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "CELLS": "1"}
        return step("leaderboard-check.yml", name, tmp_path / "ci", **env)

    run_step("Which leaderboards change")
    assert (tmp_path / "ci" / "changed.txt").read_text().split() == ["new", "one"]
    assert run_step("Rank changes").returncode == 0
    text = (tmp_path / "ci" / "comment" / "diff.md").read_text()
    assert "### new\n\nA new leaderboard." in text
    assert "| swav |" in text
    judge = functools.partial(run_step, "Judge a sample of the encoders again")
    shutil.rmtree(new / "new")  # what follows is of one leaderboard
    (tmp_path / "ci" / "changed.txt").write_text("one\n")
    lacking = "one has new records that no new line in bundles.txt has the encoders of"
    assert lacking in judge().stdout
    for line in ("0" * 64 + "  http://example.org/x\n", "short  https://example.org/x\n"):
        (new / "one" / "bundles.txt").write_text(line)
        assert "no sha256 and https" in judge().stdout
    # a bundle that is there, but of other records
    bundle = tmp_path / "bundle.zip"
    program_of(
        tmp_path / "bin" / "curl", f'while [ "$1" != --output ]; do shift; done; cp {bundle} "$2"'
    )
    program_of(tmp_path / "bin" / "sslbench", 'echo "$@"')
    paths = [p for p in new.glob("one/records/*/*/*.json") if p.stem[-24:] in
             {record.record_id[:24] for record in found}]  # fmt: skip
    for count, status in ((1, 1), (2, 0)):
        with zipfile.ZipFile(bundle, "w") as archive:
            for path in paths[:count]:
                archive.write(path, str(path.relative_to(new / "one")))
        sha256 = hashlib.sha256(bundle.read_bytes()).hexdigest()
        (new / "one" / "bundles.txt").write_text(f"{sha256}  https://example.org/x.zip\n")
        done = judge()
        assert done.returncode == status, done.stdout + done.stderr
        assert "leaderboard verify bundle.zip --cells 1" in done.stdout
        assert (lacking in done.stdout) == bool(status)
    bundle.write_bytes(b"another")
    assert judge().returncode == 1
    (new / "one" / "attestations").mkdir()
    (new / "one" / "attestations" / "mine.json").write_text("{}")
    assert "attestations come from maintainers" in judge().stdout
    (base / "one" / "records" / "it.npz").write_bytes(b"\0")  # of what was predicted
    assert "one: records were removed" in judge().stdout
    (new / "one" / "records" / "it.npz").write_bytes(b"\1")
    assert "one: records/it.npz was changed" in judge().stdout


def test_the_comment_trusts_no_artefact(tmp_path):
    program_of(
        tmp_path / "bin" / "gh",
        'if [ "$1" = api ]; then echo "$2" > asked; echo aaa; else cp "$7" "posted-$3"; fi',
    )
    room = tmp_path / "comment"
    room.mkdir()

    def comment(number, text, head="aaa"):
        (room / "number.txt").write_text(number)
        (room / "diff.md").write_text(text)
        env = {"RUNNER_TEMP": str(tmp_path), "REPOSITORY": "a/b", "HEAD": head, "ADDRESS": "u"}
        return step("leaderboard-comment.yml", "Comment", room, CONCLUSION="success", **env)

    for number in ("7; id", "$(id)", "../9", ""):
        assert comment(number, "x").returncode == 1
    assert "not the head of #7" in comment("7", "x", head="bbb").stdout
    assert not list(room.glob("posted*"))
    assert comment("7\n", "hello @everyone \x1b[31m" + "y" * 70_000).returncode == 0
    text = (room / "posted-7").read_text()
    assert "[The check](u): success." in text
    assert "@everyone" not in text
    assert "\x1b" not in text
    assert len(text) < 65_000
    (room / "diff.md").unlink()
    (room / "diff.md").symlink_to("/proc/self/environ")
    (room / "number.txt").write_text("7")
    env = {"RUNNER_TEMP": str(tmp_path), "REPOSITORY": "a/b", "HEAD": "aaa"}
    assert step("leaderboard-comment.yml", "Comment", room, **env).returncode == 1
