"""Networks of timm behind the contract, against timm itself."""

import copy
import logging

import pytest
import torch
from torch import nn

from sslbench.backbones.timm import create, known
from sslbench.errors import UnknownName, UserError
from sslbench.nn import copy_frozen, sincos

NETWORKS = [
    ("resnet18", {}),
    ("resnet18-small", {}),
    ("resnet50", {}),
    ("test_resnet", {}),
    ("test_resnet-small", {}),
    ("test_vit", {"patch_size": 8}),
    ("vit_tiny_patch16_224", {"patch_size": 4}),
    ("convnext_atto", {}),
    ("test_efficientnet", {}),
    ("test_convnext", {}),
]
FEW = [NETWORKS[3], NETWORKS[5]]


def made(name, bracket, *, size=32, seed=0):
    torch.manual_seed(seed)
    return create(name, size=size, **bracket)


def images(n=2, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def timms(name, **arguments):
    import timm

    return timm.create_model(name, num_classes=0, **arguments)


# ---- what every network does ---------------------------------------------------------------


@pytest.mark.parametrize(("name", "bracket"), NETWORKS)
def test_a_network_gives_vectors_maps_and_gradients_and_is_stable_in_eval(name, bracket):
    backbone = made(name, bracket)
    x = images()
    features = backbone(x)
    assert features.shape == (2, backbone.dim)
    features.square().sum().backward()
    lacking = [name for name, p in backbone.named_parameters() if p.grad is None]
    assert lacking == []
    backbone.eval()
    with torch.no_grad():
        together = backbone(x)
        assert torch.equal(together, backbone(x))
        apart = torch.cat([backbone(x[:1]), backbone(x[1:])])
        maps = backbone.maps(x)
    torch.testing.assert_close(apart, together, rtol=1e-3, atol=1e-4)
    assert all(m.ndim == 4 and len(m) == 2 for m in maps)
    sides = [m.shape[-1] for m in maps]
    assert sides == sorted(sides, reverse=True)


@pytest.mark.parametrize(("name", "bracket"), FEW)
def test_features_are_those_of_timm_on_normalised_images(name, bracket):
    backbone = made(name, bracket).eval()
    vit = {"img_size": 32, "dynamic_img_size": True} if bracket else {}
    torch.manual_seed(0)
    theirs = timms(name, **bracket, **vit).eval()
    assert list(theirs.state_dict()) == list(backbone.net.state_dict())
    mean = torch.tensor(theirs.pretrained_cfg["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(theirs.pretrained_cfg["std"]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = theirs((images() - mean) / std)
        torch.testing.assert_close(backbone(images()), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "bracket"), [n for n in NETWORKS if n[0] != "resnet50"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name, bracket):
    first, again, other = (made(name, bracket, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("name", "bracket"), FEW)
def test_a_backbone_survives_copy_and_state_dict(name, bracket):
    backbone = made(name, bracket).eval()
    twin = copy_frozen(backbone)
    fresh = made(name, bracket, seed=1).eval()
    fresh.load_state_dict({k: v.contiguous() for k, v in backbone.state_dict().items()})
    with torch.no_grad():
        expected = backbone(images())
        assert torch.equal(twin(images()), expected)
        assert torch.equal(fresh(images()), expected)
    for p, q in zip(backbone.parameters(), fresh.parameters(), strict=True):
        assert p.stride() == q.stride()


@pytest.mark.parametrize(("name", "bracket"), FEW)
def test_anew_is_the_same_architecture_with_other_weights_in_the_same_mode(name, bracket):
    backbone = made(name, bracket).eval()
    other = backbone.anew()
    assert (other.name, other.dim, other.training) == (backbone.name, backbone.dim, False)
    shapes = {key: value.shape for key, value in backbone.state_dict().items()}
    assert {key: value.shape for key, value in other.state_dict().items()} == shapes
    assert not torch.equal(other(images()), backbone(images()))


class Halves(nn.Module):
    """A front with state of its own: two channels out of three."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.tensor([0.5, 0.5, 0.0]).view(1, 3, 1, 1))

    def forward(self, x):
        return torch.cat([(x * self.weight).sum(1, keepdim=True), x[:, 2:]], dim=1)


@pytest.mark.parametrize(("name", "bracket"), [*FEW, ("resnet18-small", {})])
def test_a_front_feeds_the_network_in_place_of_normalisation(name, bracket):
    fed = made(name, bracket).with_input(Halves(), 2).eval()
    with torch.no_grad():
        features = fed(images())
        assert features.shape == (2, fed.dim)
        torch.testing.assert_close(features, fed.net(Halves()(images())), rtol=1e-4, atol=1e-5)
    again = fed.anew()
    assert again.front is not fed.front
    assert copy.deepcopy(fed).eval()(images()).shape == (2, fed.dim)
    assert made(name, bracket).with_input(lambda x: x.mean(1, keepdim=True), 1)(images()).ndim == 2


def test_an_input_that_asks_for_its_gradient_gets_one_and_is_left_as_it_was():
    x = images().requires_grad_()
    before = x.detach().clone()
    made("test_resnet", {}).eval()(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0
    assert torch.equal(x.detach(), before)


# ---- layout, stems, sizes ------------------------------------------------------------------


def test_convolutional_networks_run_channels_last_and_patch_networks_do_not():
    conv, vit = made("test_resnet", {}), made("test_vit", {"patch_size": 8})
    seen = []
    for backbone in (conv, vit):
        backbone.net.register_forward_pre_hook(
            lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
        )
        backbone(images())
    assert seen == [True, False]
    weights = [p for p in conv.parameters() if p.ndim == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


# ---- parts of a network --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "bracket"), NETWORKS)
def test_shapes_are_those_of_the_maps_and_leave_the_mode(name, bracket):
    network = made(name, bracket)
    network.net.eval()
    modes = [m.training for m in network.modules()]
    shapes = network.shapes(32)
    assert shapes == [tuple(m.shape[1:]) for m in network.maps(torch.rand(2, 3, 32, 32))]
    assert [m.training for m in network.modules()] == modes


@pytest.mark.parametrize(("name", "bracket"), NETWORKS)
@pytest.mark.parametrize("level", [0, -2, -1])
def test_a_cut_network_averages_the_map_that_it_ends_with(name, bracket, level):
    network = made(name, bracket).eval()
    short, x = network.upto(level), torch.rand(2, 3, 32, 32)
    maps = network.maps(x)
    level %= len(maps)
    torch.testing.assert_close(short(x), maps[level].mean((2, 3)))
    assert [m.shape for m in short.maps(x)] == [m.shape for m in maps[: level + 1]]
    assert short.dim == maps[level].shape[1]
    short.train()
    short(x).sum().backward()
    assert all(p.grad is not None for p in short.parameters() if p.requires_grad), "left untrained"
    again = short.anew()
    assert again(x).shape == short(x).shape
    again.load_state_dict(short.state_dict())


def test_a_cut_beyond_the_maps_is_a_sentence():
    with pytest.raises(UserError, match=r"was to be cut after map 5 and has 5: 0 to 4"):
        made("test_resnet", {}).upto(5)


@pytest.mark.parametrize(
    ("name", "bracket"), [n for n in NETWORKS if n[0] not in ("test_efficientnet", "test_vit")]
)
def test_a_narrower_twin_has_half_the_width_of_every_map_behind_the_stem(name, bracket):
    network = made(name, bracket)
    half = network.narrower()
    assert half.dim * 2 == network.dim
    first = 1 if "resnet" in name else 0
    wide, narrow = network.shapes(32)[first:], half.shapes(32)[first:]
    assert [(c * 2, h, w) for c, h, w in narrow] == wide
    grey = half.with_input(lambda x: x.mean(1, keepdim=True), channels=1)
    assert grey(torch.rand(2, 3, 32, 32)).shape == (2, half.dim)


def test_a_family_without_a_narrower_twin_says_so():
    with pytest.raises(UserError, match="test_efficientnet has no twin of half its width"):
        made("test_efficientnet", {}).narrower()


def test_a_network_of_another_name_takes_the_same_images():
    network = made("test_resnet", {}).eval()
    other = network.another("test_vit[patch_size=8]")
    assert (other.name, other.patch, other.training) == ("test_vit[patch_size=8]", 8, False)
    assert other(torch.rand(2, 3, 32, 32)).shape == (2, other.dim)
    with pytest.raises(UnknownName, match="unknown backbone 'resnet81'"):
        network.another("resnet81")
    with pytest.raises(UserError, match="'resnet18:5' is no name of a network"):
        network.another("resnet18:5")


@pytest.mark.parametrize("name", ["test_vit", "test_vit2", "vit_tiny_patch16_224"])
def test_attended_tokens_are_pooled_to_the_features(name):
    network = made(name, {"patch_size": 8}).eval()
    x = torch.rand(2, 3, 32, 32)
    tokens = network.tokens(x)
    assert network.patch == 8
    assert tokens.shape == (2, network.prefix + 16, network.dim)
    assert network.pool(network.attend(tokens)).equal(network(x))


def test_any_subset_of_the_tokens_can_be_attended():
    network = made("test_vit", {"patch_size": 8}).eval()
    x = torch.rand(2, 3, 32, 32)
    kept = network.tokens(x)[:, [0, 3, 9]]
    assert network.attend(kept).shape == (2, 3, network.dim)
    x[:, :, 24:, 24:] = 0  # the last patch, which is not among them
    assert network.attend(network.tokens(x)[:, [0, 3, 9]]).equal(network.attend(kept))


def test_a_masked_patch_keeps_its_position_and_nothing_of_its_pixels():
    network = made("test_vit", {"patch_size": 8}).eval()
    x, blank = torch.rand(2, 3, 32, 32), torch.randn(network.dim)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 5] = True
    tokens, plain = network.tokens(x, mask, blank), network.tokens(x)
    differs = (tokens != plain).any(2)
    assert differs.nonzero().tolist() == [[0, network.prefix + 5]]
    positions = network.net.pos_embed[0, network.prefix + 5]
    torch.testing.assert_close(tokens[0, network.prefix + 5], blank + positions)


def test_fixed_positions_are_told_apart_and_not_trained():
    network = made("test_vit", {"patch_size": 8})
    network.fix_positions()
    table = network.net.pos_embed
    assert not table.requires_grad
    assert len(table[0, -16:].unique(dim=0)) == 16
    assert torch.equal(table[0, -16:], sincos((4, 4), network.dim))
    assert not table[0, :-16].any()


@pytest.mark.parametrize("ask", ["tokens", "attend", "pool", "fix_positions"])
def test_a_network_without_tokens_says_which_has_some(ask):
    network = made("test_resnet", {})
    assert network.patch == 0
    with pytest.raises(UserError, match="a ViT, such as vit_tiny_patch16_224, does"):
        getattr(network, ask)(*[torch.rand(2, 3, 32, 32)] * (ask != "fix_positions"))


@pytest.mark.parametrize("name", ["resnet18", "resnet50d", "test_resnet"])
def test_the_small_stem_is_one_convolution_at_full_resolution(name):
    backbone = made(f"{name}-small", {})
    stem = backbone.net.conv1
    assert (stem.kernel_size, stem.stride, stem.padding) == ((3, 3), (1, 1), (1, 1))
    assert stem.bias is None
    assert isinstance(backbone.net.maxpool, nn.Identity)
    first, *_, last = backbone.maps(images())
    assert first.shape[-1] == 32
    assert last.shape[-1] == 4
    # as the family draws its own: normal of variance 2 / fan-out
    assert float(stem.weight.detach().std()) == pytest.approx(
        (2 / (9 * stem.out_channels)) ** 0.5, rel=0.1
    )


def test_other_families_say_that_they_have_no_small_stem():
    with pytest.raises(UserError, match=r"only the ResNets have .*'convnext_atto' has none"):
        create("convnext_atto-small", size=32)


def test_small_crops_pass_through_a_vit_and_odd_ones_get_a_sentence():
    backbone = made("test_vit", {"patch_size": 8})
    assert backbone(images(size=16)).shape == (2, 64)
    assert backbone(images(size=48)).shape == (2, 64)
    with pytest.raises(UserError, match="patches of 8 pixels, which 20 is not a multiple of"):
        backbone(images(size=20))
    with pytest.raises(UserError, match="takes images of 32 pixels only; found 16"):
        made("cait_xxs24_224", {})(images(size=16))


@pytest.mark.parametrize(
    ("name", "size", "advice"),
    [
        ("vit_tiny_patch16_224", 28, r"28 is not a multiple of; try .*\[patch_size=7\]"),
        ("vit_tiny_patch16_224", 16, r"a single patch; try .*\[patch_size=4\]"),
        ("vit_tiny_patch16_224", 8, r"try .*\[patch_size=2\]"),
        ("mixer_s16_224", 28, "28 is not a multiple of"),
        ("convnext_atto", 2, "cannot be built for 2 pixels .*try larger images"),
        ("inception_v3", 32, "cannot be built for 32 pixels .*try larger images"),
    ],
)
def test_too_small_an_image_is_a_sentence_with_advice(name, size, advice):
    with pytest.raises(UserError, match=advice):
        create(name, size=size)


# ---- names and brackets --------------------------------------------------------------------


def test_the_name_is_as_asked_for_with_its_bracket_in_order():
    backbone = made("test_vit", {"patch_size": 8, "drop_path_rate": 0.1})
    assert backbone.name == "test_vit[drop_path_rate=0.1,patch_size=8]"
    assert made("resnet18-small", {}).name == "resnet18-small"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet81", "'resnet18'"),
        ("resnet18-smal", "'resnet18-small'"),
        ("hf-hub:a/b", ""),
        ("local-dir:/etc", ""),
        ("../resnet18", ""),
        ("", ""),
    ],
)
def test_an_unknown_name_is_an_error_with_suggestions(name, near):
    with pytest.raises(UnknownName, match=f"unknown backbone .*{near}"):
        create(name, size=32)


@pytest.mark.parametrize(
    ("name", "bracket", "sentence"),
    [
        ("test_vit", {"pach_size": 8}, "takes no 'pach_size'; did you mean 'patch_size'"),
        ("test_vit", {"patch_size": "x"}, r"test_vit\[patch_size=x\] cannot be built"),
        ("test_resnet", {"foo": 1}, "takes no 'foo'; there are .*output_stride"),
        ("hrnet_w18_small", {"foo": 1}, "takes no 'foo'"),
        ("test_resnet", {"output_stride": 3}, "try other values in the bracket"),
        ("test_resnet", {"num_classes": 3}, "num_classes is not for the bracket"),
        ("test_resnet", {"checkpoint_path": "x.pt"}, "checkpoint_path is not for the bracket"),
        ("test_resnet.nope", {}, "no weights tagged 'nope'; .*r160_in1k"),
    ],
)
def test_a_wrong_bracket_or_tag_is_a_sentence(name, bracket, sentence):
    with pytest.raises(UserError, match=sentence):
        create(name, size=32, **bracket)


def test_known_names_include_small_stems_of_resnets_only():
    names = known()
    assert {"resnet50", "resnet50-small", "convnext_atto", "test_resnet-small"} <= set(names)
    assert "convnext_atto-small" not in names


def test_timm_says_nothing_on_the_side(caplog, recwarn, capsys):
    with caplog.at_level(logging.DEBUG):
        made("tv_resnet34", {})  # a name timm calls deprecated
        with pytest.raises(UserError):
            create("test_vit", size=32, patch_size=5)
    assert [r for r in caplog.records if r.name.startswith("timm")] == []
    assert len(recwarn) == 0
    assert capsys.readouterr() == ("", "")


# ---- published weights ---------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of weights and no network; a function that puts weights into it."""
    from huggingface_hub import constants
    from safetensors.torch import save_file

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def put(name, net):
        folder = tmp_path / f"models--timm--{name}"
        snapshot = folder / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        weights = {key: value.contiguous() for key, value in net.state_dict().items()}
        save_file(weights, snapshot / "model.safetensors")
        return snapshot / "model.safetensors"

    return put


def classifier(name, **arguments):
    import timm

    torch.manual_seed(7)
    return timm.create_model(name, **arguments)


@pytest.mark.parametrize("tag", ["", "r160_in1k"])
def test_published_weights_are_loaded_whole_with_their_normalisation(hub, tag):
    theirs = classifier("test_resnet")
    hub("test_resnet.r160_in1k", theirs)
    backbone = made("test_resnet", {}).eval()
    loaded = backbone.pretrained(tag)
    assert (loaded.name, loaded.training) == ("test_resnet", False)
    ours = loaded.net.state_dict()
    assert all(torch.equal(ours[key], theirs.state_dict()[key]) for key in ours)
    assert loaded.mean.flatten().tolist() == pytest.approx(theirs.pretrained_cfg["mean"])
    assert not torch.equal(loaded(images()), backbone(images()))


def test_a_vits_published_weights_are_fitted_to_another_image_size(hub):
    theirs = classifier("test_vit")
    hub("test_vit.r160_in1k", theirs)
    loaded = made("test_vit", {}, size=64).pretrained("")
    assert torch.equal(loaded.net.blocks[0].mlp.fc1.weight, theirs.blocks[0].mlp.fc1.weight)
    assert loaded(images(size=64)).shape == (2, 64)


def test_weights_that_are_not_there_point_to_the_download_option(hub):
    with pytest.raises(UserError, match=r"'a1_in1k' of resnet18 are not in .* --download"):
        made("resnet18", {}).pretrained("")


def test_an_unknown_tag_lists_those_there_are(hub):
    with pytest.raises(UserError, match=r"no weights tagged 'a9_in1k'.*'a1_in1k'"):
        made("resnet18", {}).pretrained("a9_in1k")
    with pytest.raises(UserError, match="publishes no weights of resnet50t"):
        made("resnet50t", {}).pretrained("")


def test_architectures_that_the_weights_do_not_fit_are_refused(hub):
    hub("test_resnet.r160_in1k", classifier("test_resnet"))
    hub("test_vit.r160_in1k", classifier("test_vit"))
    with pytest.raises(UserError, match="another stem"):
        made("test_resnet-small", {}).pretrained("")
    with pytest.raises(UserError, match="another input"):
        made("test_resnet", {}).with_input(Halves(), 2).pretrained("")
    with pytest.raises(UserError, match=r"do not fit test_vit\[depth=8,patch_size=8\]"):
        made("test_vit", {"depth": 8, "patch_size": 8}).pretrained("")
    with pytest.raises(UserError, match=r"do not fit test_resnet\[stem_width=24\]"):
        made("test_resnet", {"stem_width": 24}).pretrained("")


def test_a_damaged_file_of_weights_is_a_sentence(hub):
    file = hub("test_resnet.r160_in1k", classifier("test_resnet"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="cached weights 'r160_in1k' of test_resnet cannot be read"):
        made("test_resnet", {}).pretrained("")
