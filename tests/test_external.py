"""Weights from outside: read without running code, fitted whole or refused, taken in and judged."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import json
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

import sslbench
from sslbench.cli.app import program
from sslbench.errors import UserError
from sslbench.plugins import registry
from sslbench.run.external.fitting import WeightsRequest, fit
from sslbench.run.external.reading import Saved, read
from sslbench.store import Store

pytestmark = pytest.mark.usefixtures("forks")
TINY = """
summary: a tiny suite
datasets: ["digits[test=30,train=100]"]
backbones: [test_resnet]
methods: [simclr]
baselines: [untrained]
floor: untrained
evaluators: [knn]
seeds: [0, 1]
epochs: 1
batch: 32
"""
FOUND = registry(installed=False)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("SSLBENCH_STORE", "SSLBENCH_DATA"):
        monkeypatch.delenv(name, raising=False)


def network(name="test_resnet", size=32):
    return FOUND.find("backbones", name).load()(name, size=size)


def weights(name="test_resnet", seed=1):
    """By timm's names, none of them as a network starts."""
    generator = torch.Generator().manual_seed(seed)
    state = network(name).net.state_dict()
    return {
        k: v if not v.is_floating_point() else torch.rand(v.shape, generator=generator) + 0.1
        for k, v in state.items()
    }


def under(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def saved(content, file="w.pth"):
    """Through a file, as strangers have them."""
    torch.save(content, file)
    return read(Path(file)).tensors


def fitted(content, backbone="test_resnet", **how):
    return fit(saved(content), network(backbone), WeightsRequest(Path("w.pth"), backbone, **how))


def holds(found, wanted):
    return all(torch.equal(found.state[f"net.{name}"], tensor) for name, tensor in wanted.items())


def refusal(content, backbone="test_resnet", **how):
    with pytest.raises(UserError) as error:
        fitted(content, backbone, **how)
    return str(error.value)


# ---- reading ---------------------------------------------------------------------------------


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


STATE = {"w": torch.ones(2, 3), "b": torch.arange(4.0)[1:3]}
STRANGE = {
    "posix.mkdir": Harmful(),
    "argparse.Namespace": argparse.Namespace(lr=1, more=[Path("x")]),
    "pathlib.PosixPath": Path("/home"),
    "numpy": np.float64(3.5),
    "decimal.Decimal": decimal.Decimal(1),
    "datetime": datetime.datetime(2026, 1, 1),
    "collections.defaultdict": collections.defaultdict(list, a=[1]),
    "torch.nn.modules.linear.Linear": nn.Linear(2, 2),
}


@pytest.mark.parametrize("what", STRANGE)
def test_tensors_are_read_beside_objects_that_are_not_made(what):
    torch.save({"state_dict": STATE, "more": STRANGE[what]}, "w.pth")
    found = read(Path("w.pth"))
    assert [each.whole for each in found.tensors] == ["state_dict.w", "state_dict.b"]
    assert all(torch.equal(each.tensor, STATE[each.name]) for each in found.tensors)
    assert any(what in name for name in found.not_made)
    assert not Path("harmed").exists()


def test_every_plain_type_of_tensor_comes_through_beside_them():
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32]
    kinds += [torch.int16, torch.int8, torch.uint8, torch.bool]
    state = {str(kind): torch.tensor([1, 0, 1]).to(kind) for kind in kinds}
    state |= {"none": torch.empty(0, 3), "one": torch.tensor(2.5), "turned": torch.rand(2, 5).T}
    state |= {"weight": nn.Parameter(torch.rand(3))}
    torch.save({"state": state, "more": argparse.Namespace()}, "w.pth")
    found = {each.name: each.tensor for each in read(Path("w.pth")).tensors}
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_whole_module_is_refused_with_its_type_and_what_to_do():
    for content in (nn.Linear(2, 2), {"model": nn.Linear(2, 2)}):
        with pytest.raises(UserError) as error:
            saved(content)
        assert "asks for torch.nn.modules.linear.Linear, and loading that would" in str(error.value)
        assert "torch.save(model.state_dict(), FILE)" in str(error.value)


class Call:
    """What a pickle calls a function with."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def archive(content: bytes, storages=(), method=zipfile.ZIP_STORED, name="w.pth"):
    with zipfile.ZipFile(name, "w", method) as file:
        file.writestr("w/data.pkl", content)
        file.writestr("w/byteorder", "little")
        file.writestr("w/version", "3")
        for key, storage in enumerate(storages):
            file.writestr(f"w/data/{key}", storage)
    return Path(name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\x80\x02" + b"N0" * 2_500_000 + b"N.", "the list of its objects has 5,000,004 bytes"),
        (b"\x80\x02cposix\nsystem\n(X\x0c\0\0\0mkdir harmed\x85R.", None),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", None),
        (b"\x80\x02", None),
        (b"", None),
        (b"garbage", None),
    ],
    ids=["opcodes", "system", "eval", "cut", "empty", "garbage"],
)
def test_hostile_lists_of_objects_are_refused_soon(content, sentence):
    begun = time.monotonic()
    with pytest.raises(UserError, match=sentence):
        read(archive(content))
    assert time.monotonic() - begun < 10
    assert not Path("harmed").exists()


def test_files_larger_than_they_are_are_refused():
    torch.save({"w": torch.zeros(1_000_000)}, "whole.pth")
    with zipfile.ZipFile("whole.pth") as whole, zipfile.ZipFile("bomb.pth", "w") as bomb:
        for info in whole.infolist():
            bomb.writestr(info.filename, whole.read(info), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match=r"is compressed, which torch\.save never does"):
        read(Path("bomb.pth"))
    small = torch.zeros(1).expand(40_000, 40_000)
    torch.save({"w": small, "more": argparse.Namespace()}, "wide.pth")
    with pytest.raises(UserError, match="a tensor is larger than its numbers in the file"):
        read(Path("wide.pth"))


@pytest.mark.parametrize("count", [20_000, 100_000])
def test_more_tensors_than_any_network_has_are_refused(count):
    begun = time.monotonic()
    save_file({str(number): torch.empty(0) for number in range(count)}, "w.safetensors")
    with pytest.raises(UserError, match="holds more than 16,384 tensors"):
        read(Path("w.safetensors"))
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.pth", b"", "is empty"),
        ("text.pth", b"hello, world, I am text", "is not a readable file of torch.save: it begins"),
        ("text.safetensors", b"hello, world, I am text", "is not a readable safetensors file"),
        ("weights.h5", b"x", "ends in .h5; files of weights that can be read end in .safetensors"),
        ("page.pth", b"\n<!DOCTYPE html><title>Sign in", "is a page of HTML: the download gave"),
        ("page.safetensors", b"<html>", "is a page of HTML: the download gave"),
        ("w.bin", b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        ("keras.pth", b"\x89HDF\r\n\x1a\n", "is HDF5"),
        ("config.bin", b'{"a": 1}', "is JSON, not weights"),
    ],
)
def test_a_file_that_is_none_is_refused(name, content, sentence):
    Path(name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read(Path(name))


def test_a_cut_file_a_folder_and_what_holds_no_tensors_are_refused():
    torch.save(weights(), "whole.pth")
    Path("cut.pth").write_bytes(Path("whole.pth").read_bytes()[:-3000])
    with pytest.raises(
        UserError, match=r"cut\.pth is not a readable file of torch\.save: it is not wh"
    ):
        read(Path("cut.pth"))
    with pytest.raises(UserError, match="is a folder"):
        read(Path())
    with pytest.raises(UserError, match=r"holds no tensors by name .found: epoch: int"):
        saved({"epoch": 3})
    with pytest.raises(UserError, match=r"holds no tensors by name .found: list"):
        saved([torch.ones(2)])


def test_safetensors_and_every_depth_of_dictionaries_are_read():
    save_file({"a.b": torch.arange(3)}, "w.safetensors")
    (one,) = read(Path("w.safetensors")).tensors
    assert (one.place, one.name, one.tensor.tolist()) == ("", "a.b", [0, 1, 2])
    content = {"model": {"state": {"a.b": torch.ones(1)}}, "c": torch.ones(2), "epoch": 1}
    assert [one[:2] for one in saved(content)] == [("model.state.", "a.b"), ("", "c")]


# ---- fitting ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before", ["", "module.", "net.", "module.encoder_q.", "student.backbone."]
)
@pytest.mark.parametrize("within", [None, "state_dict"])
def test_what_stands_before_the_names_is_found(before, within):
    own = weights()
    content = under(before, own)
    content |= {f"{before}fc.weight": torch.ones(3), "queue": torch.ones(4, 2)}
    found = fitted({within: content, "epoch": 3} if within else content)
    assert holds(found, own)
    whole = (f"{within}." if within else "") + before
    said = " ".join(found.lines)
    assert f"all {len(own)} tensors of test_resnet found" in said
    assert not whole or f"under {whole!r}" in said
    left = next(line for line in found.lines if line.startswith("left out"))
    assert "fc." in left
    assert "queue" in left


def test_of_two_networks_the_one_that_is_judged_by_custom_is_taken_and_the_other_named():
    query, key = weights(seed=1), weights(seed=2)
    both = under("module.encoder_k.", key) | under("module.encoder_q.", query)
    found = fitted({"state_dict": both})
    assert holds(found, query)
    assert any("'state_dict.module.encoder_k.'" in line for line in found.lines)
    assert holds(fitted({"state_dict": both}, keys="module.encoder_k.="), key)
    assert holds(fitted({"student": query, "teacher": key}), key)
    assert holds(fitted({"student": query, "teacher": key}, keys="student.="), query)
    said = refusal(under("a.", query) | under("b.", key))
    assert "several networks that fit test_resnet equally well: 'a.', 'b.'" in said
    assert "--keys a.=" in said


def as_children(state, first):
    """A ResNet's names where its children are numbered; `first` is the number of layer1."""
    places = {"conv1": 0, "bn1": 1, **{f"layer{i}": first + i - 1 for i in range(1, 5)}}
    return {f"{places[k.partition('.')[0]]}.{k.partition('.')[2]}": v for k, v in state.items()}


VIT = "vit_tiny_patch16_224"


def chunked(state):
    return {re.sub(r"^blocks\.(\d+)\.", r"blocks.0.\1.", k): v for k, v in state.items()}


def of_mmpretrain(state):
    renames = [("patch_embed.proj.", "patch_embed.projection."), (".norm1.", ".ln1.")]
    renames += [(".norm2.", ".ln2."), (".mlp.fc1.", ".ffn.layers.0.0."), ("blocks.", "layers.")]
    renames += [(".mlp.fc2.", ".ffn.layers.1."), ("norm.", "ln1.")]
    found = {}
    for name, tensor in state.items():
        for old, new in renames:
            if old in name and not (old == "norm." and not name.startswith("norm.")):
                name = name.replace(old, new)
        found[name] = tensor
    return found


@pytest.mark.parametrize("before", ["", "backbone.", "model.net."])
def test_numbered_children_of_a_resnet_are_found(before):
    state = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if "fc" not in k}
    found = fitted({"state_dict": under(before, as_children(state, 4))}, "resnet18")
    assert holds(found, state)
    assert found.lines[0].startswith("its names are those of a ResNet as nn.Sequential") or any(
        "nn.Sequential of its children, as in lightly" in line for line in found.lines
    )
    small = {**state, "conv1.weight": torch.rand(64, 3, 3, 3)}
    assert holds(fitted(under(before, as_children(small, 3)), "resnet18-small"), small)


def test_two_numbered_networks_in_one_file_are_both_understood():
    state = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if "fc" not in k}
    other = {k: v + 1 for k, v in state.items()}
    both = under("backbone.", as_children(state, 4))
    both |= under("backbone_momentum.", as_children(other, 4))
    assert holds(fitted({"state_dict": both}, "resnet18"), state)


@pytest.mark.parametrize("layout", [chunked, of_mmpretrain])
def test_vits_of_other_tools_are_found(layout):
    state = network(VIT, 224).net.state_dict()
    content = {"state_dict": under("backbone.", layout(state))}
    found = fit(saved(content), network(VIT, 224), WeightsRequest(Path("w.pth"), VIT))
    assert holds(found, state)
    assert any(line.startswith("its names are those of a ViT") for line in found.lines)


def test_torchvisions_vit_is_found():
    theirs = torchvision.models.VisionTransformer(224, 16, 12, 3, 192, 768).state_dict()
    name = f"{VIT}[class_token=true]"
    found = fit(saved(theirs), network(VIT, 224), WeightsRequest(Path("w.pth"), name))
    assert torch.equal(
        found.state["net.blocks.3.attn.qkv.weight"],
        theirs["encoder.layers.encoder_layer_3.self_attention.in_proj_weight"],
    )
    assert torch.equal(found.state["net.pos_embed"], theirs["encoder.pos_embedding"])


def test_what_compiling_puts_into_names_is_no_part_of_them():
    own = weights()
    odd = {k.replace("layer1.0.", "layer1._orig_mod.0."): v for k, v in own.items()}
    assert holds(fitted({"state_dict": under("model._orig_mod.", odd)}), own)


def test_checkpoints_as_tools_write_them_are_recognised():
    """The keys that each tool puts around a network; what they hold beside it is never made."""
    own, other = weights(seed=1), weights(seed=2)
    head = {"fc.weight": torch.ones(3), "projector.0.weight": torch.ones(2)}
    lightning = {
        "epoch": 3,
        "hyper_parameters": argparse.Namespace(lr=np.float64(0.1)),
        "loops": {},
    }
    tools = {
        "solo-learn": under("backbone.", own) | under("momentum_backbone.", other),
        "stable-pretraining": under("backbone.", own) | {"callbacks_modules.knn.x": torch.ones(2)},
        "stable-pretraining's teacher": under("backbone.student.", other)
        | under("backbone.teacher.", own),
        "lightly-train": under("student_embedding_model.wrapped_model._features.", other)
        | under("teacher_embedding_model.wrapped_model._features.", own),
        "DDP": under("module.encoder.", own),
    }
    for content in tools.values():
        found = fitted({"state_dict": content | head, **lightning})
        assert holds(found, own)
    dino = {"student": under("module.backbone.", other), "teacher": under("backbone.", own)}
    assert holds(fitted({**dino, "args": argparse.Namespace(arch="x")}), own)
    assert holds(fitted({"meta": {"epoch": 1}, "state_dict": under("backbone.", own)}), own)


def test_position_embeddings_are_resampled_on_request_and_that_is_recorded():
    vit = network(VIT, 64)
    state = network(VIT, 224).net.state_dict()
    with pytest.raises(UserError, match="--resize-positions resamples them"):
        fit(saved(state), vit, WeightsRequest(Path("w.pth"), VIT))
    found = fit(saved(state), vit, WeightsRequest(Path("w.pth"), VIT, resize_positions=True))
    own = found.state["net.pos_embed"]
    assert own.shape == vit.net.pos_embed.shape
    assert torch.equal(own[:, :1], state["pos_embed"][:, :1])  # the class token's stays
    assert found.warnings == ("pos_embed was resampled from 14 x 14 to 4 x 4 positions (bicubic)",)


def test_keys_replace_beginnings_and_leave_out():
    own = weights()
    names = {k.replace("layer1.", "stage.one."): v for k, v in own.items()}
    assert "missing" in refusal(names)
    assert holds(fitted(names, keys="stage.one.=layer1."), own)
    odd = {**own, "layer1.9.mask": torch.ones(2)}
    assert "without a place in it (1): layer1.9.mask" in refusal(odd)
    assert holds(fitted(odd, keys="layer1.9.=-"), own)
    assert holds(fitted(under("m.", odd), keys="m.layer1.9.=-"), own)
    assert "is not OLD=NEW" in refusal(own, keys="layer1")
    two = under("a.", own) | under("b.", own)
    assert "two tensors of w.pth are" in refusal(two, keys="a.=,b.=")


def test_nothing_is_loaded_in_part():
    own = weights()
    for name in list(own):
        lacking = {k: v for k, v in own.items() if k != name}
        if name.endswith("num_batches_tracked"):
            assert holds(fitted(lacking), lacking)
        elif name in ("conv1.0.weight", "layer4.0.bn1.bias", "layer2.0.bn1.running_var"):
            assert f"missing (1): {name}" in refusal(lacking)
    few = {k: v for k, v in own.items() if not k.startswith("layer1")}
    named = [k for k in own if k.startswith("layer1") and not k.endswith("tracked")]
    assert f"missing ({len(named)}): {', '.join(named[:10])}" in refusal(few)
    wrong = {**own, "layer1.0.conv1.weight": torch.ones(2, 3)}
    assert "of another shape (1): layer1.0.conv1.weight 2x3 for " in refusal(wrong)
    broken = {**own, "layer1.0.bn1.bias": own["layer1.0.bn1.bias"] * torch.nan}
    assert "NaN or infinity in net.layer1.0.bn1.bias" in refusal(broken)
    assert "no tensor of w.pth has a name of test_resnet's" in refusal({"a": torch.ones(1)})


def test_torchvisions_names_are_the_backbones_and_a_deeper_network_is_no_fit():
    state = torchvision.models.resnet18().state_dict()
    found = fitted(state, "resnet18")
    assert holds(found, {k: v for k, v in state.items() if not k.startswith("fc.")})
    assert "left out: fc.* (2)" in found.lines
    deeper = {**state, "layer1.2.conv1.weight": state["layer1.1.conv1.weight"]}
    assert "without a place in it (1): layer1.2.conv1.weight" in refusal(deeper, "resnet18")
    assert "try --backbone resnet18-small" in refusal(
        state | {"conv1.weight": torch.ones(64, 3, 3, 3)}, "resnet18"
    )
    assert "try --backbone resnet18)" in refusal(state, "resnet18-small")


def test_half_precision_is_widened_and_the_hash_is_of_the_tensors_alone():
    own = weights()
    half = {k: v.half() if v.is_floating_point() else v for k, v in own.items()}
    found = fitted(half)
    assert found.state["net.conv1.0.weight"].dtype == torch.float32
    assert holds(found, {k: v.to(own[k].dtype) for k, v in half.items()})
    one, other = fitted(own), fitted({"model": under("module.", own), "epoch": 3})
    assert one.sha256 == other.sha256 != found.sha256
    assert fitted(own, mean=(0.5, 0.5, 0.4)).sha256 != one.sha256


def test_normalisation_is_said_and_set_and_that_of_the_file_wins_over_the_backbones():
    own, start = weights(), network()
    found = fitted(own)
    assert torch.equal(found.state["mean"], start.mean)
    assert "mean 0.5 0.5 0.5 (the backbone's)" in found.lines[-1]
    found = fitted(own, mean=(0.1, 0.2, 0.3), std=(1, 1, 2))
    assert found.state["mean"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert found.state["std"].flatten().tolist() == [1, 1, 2]
    assert "std 1 1 2 (as asked)" in found.lines[-1]
    mean = torch.tensor([0.3, 0.2, 0.1]).view(3, 1, 1)
    whole = {**under("encoder.net.", own), "encoder.mean": mean, "encoder.std": mean * 2}
    found = fitted(whole)
    assert torch.equal(found.state["mean"], mean)
    assert "(the file's)" in found.lines[-1]
    assert not any("left out" in line for line in found.lines)


@pytest.mark.parametrize(
    ("file", "name", "method"),
    [
        ("moco v2.pth.tar", "", "external:moco-v2"),
        ("../x/checkpoint_0199.safetensors", "", "external:checkpoint_0199"),
        ("---.pth", "", "external:weights"),
        ("a.pth", "v1.0_b-c", "external:v1.0_b-c"),
    ],
)
def test_the_name_is_fit_for_a_table(file, name, method):
    assert WeightsRequest(Path(file), "test_resnet", name=name).method == method


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "-a", "a[b]", "a" * 65, "a\n"])
def test_another_name_is_refused(name):
    with pytest.raises(UserError, match="cannot be a name in a table"):
        _ = WeightsRequest(Path("w.pth"), "test_resnet", name=name).method


def test_saved_names_say_where_they_lie():
    assert Saved("state_dict.", "a.b", torch.ones(1)).whole == "state_dict.a.b"


# ---- the whole road --------------------------------------------------------------------------


def call(*args, code=0):
    done = CliRunner().invoke(program, args)
    assert done.exit_code == code, (done.output, done.exception)
    return done


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A store with weights from outside, judged once, and what was said."""
    folder = tmp_path_factory.mktemp("outside")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("tiny.yaml").write_text(TINY)
        torch.save({"state_dict": under("module.", weights())}, "Mine.pth")
        line = ("evaluate", "tiny.yaml", "--encoder", "Mine.pth", "--backbone", "test_resnet")
        return folder, call(*line)


@pytest.fixture
def store(judged):
    """A copy of it, without the file that the weights came from."""
    Path("tiny.yaml").write_text(TINY)
    return Path(shutil.copytree(judged[0] / "sslbench-store", "sslbench-store"))


def only_cell(store):
    (cell,) = Store(store).cells()
    return cell


def test_weights_are_judged_as_one_cell_that_knows_nothing_of_the_file(judged, store):
    cell = only_cell(store)
    train, judgement = sorted(cell.records(), key=lambda r: r.kind, reverse=True)
    assert (train.status, judgement.status) == ("ok", "ok")
    assert (train.method, train.seed, judgement.evaluator) == ("external:Mine", 0, "knn")
    assert [w.code for w in train.warnings if w.code == "external"] == ["external"]
    identity = cell.identity().plain
    assert identity["method"].keys() == {"name", "version", "hyperparameters"}
    assert identity["method"]["hyperparameters"].keys() == {"sha256"}
    texts = [p.read_text() for p in store.rglob("*.json")]
    assert not any("Mine.pth" in text or "module." in text for text in texts)
    said = judged[1].stdout
    assert "external:Mine is Mine.pth: all " in said
    assert "under 'state_dict.module.'" in said
    assert "weights from outside: what they were trained on is not known here" in said
    assert "made 1 evaluation\n" in said
    loaded = sslbench.load(cell.id, store)
    assert all(torch.equal(loaded.net.state_dict()[k], v) for k, v in weights().items())


def test_what_the_store_has_needs_no_file_and_stands_in_the_tables_of_its_suite(store):
    table = json.loads(call("leaderboard", "show", "--suite", "tiny.yaml", "--json").stdout)
    rows = [row for each in table["tables"] for row in each["rows"]]
    assert [row["method"] for row in rows] == ["external:Mine", "simclr", "untrained"]
    assert len(rows[0]["cells"]) == 1  # of two seeds
    plan = json.loads(call("plan", "--suite", "tiny.yaml", "--json").stdout)
    assert [c["state"] for c in plan["cells"] if c["method"] == "external:Mine"] == ["done"]
    for line in ("--methods simclr", "--precision bf16", "--datasets digits"):
        assert "external:" not in call("plan", "--suite", "tiny.yaml", *line.split()).stdout
    for line in ((), ("--methods", "external:Mine")):
        plan = call("plan", "--suite", "tiny.yaml", "--evaluators", "linear", *line).stdout
        assert "to judge: linear-2" in plan
    said = call("plan", "--suite", "tiny.yaml", "--methods", "external:Yours", code=2).stderr
    assert "has no weights 'external:Yours' for digits[test=30,train=100]" in said
    said = call("run", "--suite", "tiny.yaml", "--methods", "external", code=2).stderr
    assert "external stands for weights from outside and cannot be run" in said


def test_a_name_is_of_one_set_of_weights_and_the_same_ones_are_taken_in_once(store):
    line = ("evaluate", "tiny.yaml", "--backbone", "test_resnet", "--name", "Mine", "--encoder")
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*.json")}
    save_file(weights(), "same.safetensors")
    assert "made 0 evaluations" in call(*line, "same.safetensors").stdout
    torch.save(weights(seed=2), "other.pth")
    said = call(*line, "other.pth", code=2).stderr
    assert (
        f"already has other weights of test_resnet as external:Mine (cell {only_cell(store).id[:12]})"
        in said
    )
    assert before == {p: p.stat().st_mtime_ns for p in store.rglob("*.json")}


def test_weights_that_the_store_lost_are_never_replaced_by_a_fresh_network(store):
    cell = only_cell(store)
    (cell.path / "model.safetensors").write_bytes(b"damaged")
    line = ("evaluate", "tiny.yaml", "--evaluators", "clustering")
    done = call(*line, code=3)
    assert "the store has lost them" in done.output
    assert not any(r.evaluator == "clustering" for r in cell.records())
    torch.save(weights(), "Mine.pth")
    call(*line, "--encoder", "Mine.pth", "--backbone", "test_resnet")
    assert any(r.evaluator == "clustering" and r.status == "ok" for r in cell.records())


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda t: t.to(torch.complex64), "complex64"),
        (lambda t: t.to(torch.int8), "int8"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to("meta"), "without content"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_refused(spoil, kind):
    state = weights()
    name = next(n for n, t in state.items() if t.dim() == 4)
    state[name] = spoil(state[name])
    with pytest.raises(UserError, match=rf"no plain numbers \(1\): {name} is {kind}"):
        fitted(state)
