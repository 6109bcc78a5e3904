"""Published numbers: as they were printed, with where they stand, and inert whoever wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from test_latex import check_structure, commands
from test_leaderboard import HOSTILE, Elements

from sslbench.errors import UserError
from sslbench.leaderboard.board.reference import OURS, read, references
from sslbench.leaderboard.output.references import as_latex, as_markdown, as_text
from sslbench.plugins import registry

OWN = """
format: 1
sources:
  - source: My paper
    url: https://example.org/paper
    date: 2024-05-01
    backbone: resnet50
    protocol: linear probe of frozen features
    columns: [cifar10 top1, mine top1]
    rows:
      New: [97.25, 50]
      Old: [88.1, null]
"""


def written(folder: Path, text: str = OWN) -> Path:
    path = folder / "own.yaml"
    path.write_text(text)
    return path


def one(dataset, method, metric, said):
    found = [
        each
        for each in references([dataset])
        if (each.method, each.metric) == (method, metric) and said in each.source + each.protocol
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("dataset", "method", "metric", "said", "value"),
    [
        ("cifar10", "Barlow Twins", "top1", "solo-learn", 0.921),
        ("cifar100", "W-MSE", "top5", "solo-learn", 0.8726),
        ("cifar10", "FastSiam", "top1", "200 epochs of batch 512", 0.788),
        ("cifar10", "SimSiam", "top1", "800 epochs of batch 512", 0.904),
        ("cifar100-20", "SCAN (self-label)", "nmi", "SCAN", 0.486),
        ("stl10", "SPICE", "ari", "SPICE", 0.836),
        ("mnist", "IIC", "acc", "lowest loss", 0.992),
        ("cifar100", "PRIME (supervised)", "mean15", "RobustBench", 0.6828),
    ],
)
def test_numbers_are_as_they_were_printed(dataset, method, metric, said, value):
    assert one(dataset, method, metric, said).value == value


def test_every_number_says_under_what_and_where():
    known = set(registry(installed=False).names("datasets"))
    metrics = {"top1", "top5", "acc", "nmi", "ari", "mean15", "clean"}
    for each in read(OURS):
        assert 0 < each.value < 1
        assert each.dataset in known
        assert each.metric in metrics
        assert all((each.method, each.backbone, each.protocol, each.source, each.date))
        assert each.url.startswith("https://")
    best = [each for each in read(OURS) if each.source.startswith("lightly")]
    assert best
    assert all("max over epochs on test" in each.note for each in best)


def test_what_nobody_checked_is_not_there():
    # "SimCLR + k-means" of the SCAN paper was not found in a source
    values = {(each.dataset, each.metric, each.value) for each in read(OURS)}
    assert not values & {
        ("cifar10", "acc", 0.659),
        ("stl10", "acc", 0.658),
        ("stl10", "nmi", 0.604),
    }


def test_a_part_of_a_data_set_is_another_one():
    assert {each.dataset for each in references(["cifar10", "stl10"])} == {"cifar10", "stl10"}
    assert references(["cifar10[train=1000]", "digits"]) == ()


SOUND = OWN.replace("2024-05-01", "'2024-05-01'")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format: 1", "format: 2", "format: Input should be 1"),
        ("97.25", ".nan", "rows.New.0"),
        ("97.25", "many", "rows.New.0"),
        ("97.25", "972.5", "rows.New.0"),
        ("[88.1, null]", "[88.1]", "'Old' 1 values under 2 columns; write null"),
        ("https://example.org", "javascript:alert(1)", "sources.0.url"),
        (
            "    protocol: linear probe of frozen features\n",
            "",
            "sources.0.protocol: Field required",
        ),
        ("backbone", "backbon", "backbon"),
        ("mine top1", "cifar10 top1", "two values of top1 under one protocol"),
        ("format: 1", "format: [1", "line 3: expected ',' or ']'"),
        ("format: 1", "- a", "line 3: it does not go on from the lines above"),
        ("format: 1", "format: 1\nformat: 1", "line 3: 'format' stands here and in line 2"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path, old, new, said):
    assert old in SOUND
    with pytest.raises(UserError) as caught:
        read(written(tmp_path, SOUND.replace(old, new)))
    assert said in str(caught.value)
    assert "own.yaml" in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"not\.yaml.*No such file"):
        read(tmp_path / "not.yaml")


def test_nothing_published_is_nothing_written():
    assert (as_markdown(()), as_text(()), as_latex(())) == ("", "", "")


def test_tables_say_that_they_are_not_ranked_and_what_each_number_was(tmp_path):
    own = read(written(tmp_path, SOUND))
    text = as_text(own)
    assert text.startswith("Published elsewhere: not ranked, other protocols\n\ncifar10\n")
    assert "New     resnet50  97.25  (1)\nOld     resnet50  88.1   (1)\n" in text
    source = "(1) My paper, 2024-05-01: linear probe of frozen features; https://example.org/paper"
    assert text.count(source) == 2  # below the table of each data set
    page = as_markdown(own)
    assert "| New | resnet50 | 97.25 | (1) |\n| Old | resnet50 | 88.1 | (1) |" in page
    assert "| New | resnet50 | 50.0 | (1) |" in page
    tex = as_latex(own)
    check_structure(tex)
    assert r"New & resnet50 & 97.25 & (1) \\" in tex
    assert "not ranked" in tex


def test_every_table_of_ours_is_sound_latex():
    tex = as_latex(read(OURS))
    check_structure(tex)
    labels = [line for line in tex.splitlines() if "label" in line]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("text", [t for t in HOSTILE if t.strip()])
def test_what_somebody_else_wrote_stays_text(tmp_path, text):
    def made(word):
        import yaml

        content = yaml.safe_load(SOUND)
        source = content["sources"][0]
        source.update(dict.fromkeys(("source", "protocol", "backbone", "note"), word))
        source["rows"] = {word: [1, 2]}
        return read(written(tmp_path, yaml.safe_dump(content)))

    found, plain = made(text), made("word")
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    elements = [Elements(reader.render(as_markdown(each))).found for each in (found, plain)]
    assert elements[0] == elements[1]
    check_structure(as_latex(found))
    assert commands(as_latex(found)) == commands(as_latex(plain))
    assert all(c.isprintable() or c == "\n" for c in as_text(found))
