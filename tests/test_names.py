"""Names as typed: what they mean, how they are written back, what is refused."""

from __future__ import annotations

import math
import random

import pytest
import yaml

from sslbench.errors import UserError
from sslbench.names import Name, parse, scalar


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("digits", Name("digits")),
        ("fashion-mnist[train=10000]", Name("fashion-mnist", None, {"train": 10000})),
        ("folder:/data/x[size=64]", Name("folder", "/data/x", {"size": 64})),
        ("folder:/data/my photos", Name("folder", "/data/my photos")),
        ("folder:C:\\photos[size=64]", Name("folder", "C:\\photos", {"size": 64})),
        ("folder:/data/x[1][]", Name("folder", "/data/x[1]")),
        ("folder:/data/x[1][size=8]", Name("folder", "/data/x[1]", {"size": 8})),
        ("vit_tiny_patch16_224.augreg_in21k", Name("vit_tiny_patch16_224.augreg_in21k")),
        (
            "vit[patch_size=4, qkv_bias=false]",
            Name("vit", None, {"patch_size": 4, "qkv_bias": False}),
        ),
        ("hf-hub:timm/resnet18.a1", Name("hf-hub", "timm/resnet18.a1")),
        ("sslbench-foo/moco[k=3]", Name("sslbench-foo/moco", None, {"k": 3})),
        ("file:mine/moco[k=3]", Name("file:mine/moco", None, {"k": 3})),
        (" digits ", Name("digits")),
        ("digits[]", Name("digits")),
        ("ResNet18", Name("ResNet18")),  # refused where it is looked up, with a suggestion
    ],
)
def test_a_name_is_read_and_its_canonical_spelling_reads_back(text: str, name: Name) -> None:
    assert parse(text) == name
    assert parse(str(name)) == name
    assert str(parse(str(name))) == str(name)


def test_the_canonical_spelling_sorts_parameters_and_drops_noise() -> None:
    assert str(parse("vit[ size = 64 ,depth=2,lr=0.00001]")) == "vit[depth=2,lr=1e-05,size=64]"
    assert str(parse("digits[]")) == "digits"
    assert hash(parse("vit[a=1,b=2]")) == hash(parse("vit[b=2,a=1]"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("010", 10),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("-.inf", -math.inf),
        ("cosine", "cosine"),
        ("yes", "yes"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("'64'", "64"),
        ("'it''s'", "it's"),
        ('"a, [b]"', "a, [b]"),
        ('"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
    ],
)
def test_a_value_is_a_yaml_scalar(text: str, value: object) -> None:
    read = scalar(text)
    assert read == value
    assert type(read) is type(value)
    inside = parse(f"x[v={text}]").params["v"]
    assert inside == value
    assert type(inside) is type(value)


def test_what_both_yaml_versions_agree_on_is_read_as_pyyaml_reads_it() -> None:
    for text in ("3", "-7", "0.25", "1.5e+3", "true", "null", "~", ".inf", "word", "'q'", '"q\\n"'):
        assert scalar(text) == yaml.safe_load(text), text


def test_any_parameters_survive_being_written_and_read() -> None:
    draw = random.Random(0)
    alphabet = "ab01.-+eE_ ,[]=\"'\\:~/\n\té😀\x00\x7f"
    for _ in range(3000):
        text = "".join(draw.choice(alphabet) for _ in range(draw.randrange(6)))
        number = draw.choice(
            [draw.randrange(-99, 99), draw.uniform(-1, 1) * 10.0 ** draw.randrange(-30, 30)]
        )
        name = Name("x", None, {"text": text, "number": number, "flag": draw.random() < 0.5})
        assert parse(str(name)) == name, str(name)
        assert "\n" not in str(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "../../etc",
        "..",
        "a..b",
        ".hidden",
        "a/../b",
        "a/b/c",
        "/abs",
        "two words",
        "x[size]",
        "x[=3]",
        "x[size=]",
        "x[size=1",
        "x]",
        "x[size=1]]",
        "x[a=1,a=2]",
        "x[a=1,,b=2]",
        "x[a='open]",
        "x[a=1]y",
        "x[a=" + "9" * 5000 + "]",
        "folder:",
        "folder:/data/x[1]",
        "é",
    ],
)
def test_bad_syntax_is_one_sentence_for_the_user(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_a_bracket_that_belongs_to_the_path_is_explained() -> None:
    with pytest.raises(UserError, match=r"write folder:/data/x\[1\]\[\]"):
        parse("folder:/data/x[1]")
