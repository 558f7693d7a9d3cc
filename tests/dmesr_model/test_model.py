"""The whole model: what it never does whatever its config, and that every parameter of a config learns."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from dmesr_model.encoding import encode_items, encode_sequences, gatherer_for
from dmesr_model.item_encoder import ItemIdentity
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.objective import LossConfig, Objective
from dmesr_model.sequences import Sequences, select_users
from dmesr_model.steps import StepBuilder
from dmesr_model.trainer import TrainConfig, step_settings

SMALL = {"width": 8, "adapter_width": 8, "layers": 1, "max_length": 12, "feedforward_multiple": 2}
ABLATIONS = {
    "full": {},
    "bert4rec": {"backbone": "bert4rec"},
    "gru4rec": {"backbone": "gru4rec"},
    "separate streams": {"streams": "separate"},
    "sequence fusion": {"fusion": "sequence"},
    "bert4rec with sequence fusion": {"backbone": "bert4rec", "fusion": "sequence"},
    "fusion with feed-forward": {"fusion_feedforward_multiple": 1},
    "no fusion": {"fusion": "none"},
    "no fusion of separate streams": {"fusion": "none", "streams": "separate"},
    "no alignment": {"alignment_weight": 0.0},
    "no original text": {"use_segments": False},
    "image alone": {"views": ("image",)},
    "original text alone": {"views": ()},
    "no id": {"id_mode": "none"},
    "id concatenated": {"id_mode": "concatenated"},
    "id never hidden": {"id_dropout": 0.0},
    "id only": {"views": (), "use_segments": False},
    "plain sum": {"views": ("text",), "use_segments": False, "fusion": "none"},
    "position embeddings": {"positions": "from_end"},
}


def build(features, seed=0, **overrides):
    torch.manual_seed(seed)
    config = ModelConfig(**{**SMALL, "views": ("image", "text"), **overrides})
    model = DMESR(config, features.encoder_width, features.item_ids[:20])
    for parameter in model.items.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # far from the start, where all items are nearly the same
    return model


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("loss", ["softmax", "gbce"])
def test_gradients_reach_every_parameter(ablation, loss, toy_features, toy_sequences):
    features = toy_features()
    model = build(features, **ABLATIONS[ablation]).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # small at the start, queries and keys hardly count
    config = TrainConfig(batch_size=50, loss=LossConfig(kind=loss, negatives=8), mask_share=0.5)
    steps = StepBuilder(toy_sequences(), gatherer_for(model, features), step_settings(model.config, config))
    reached = {name: torch.zeros(()) for name, _ in model.named_parameters()}
    objective = Objective(model, config.loss, item_count=24)
    for epoch in range(3):
        objective.zero_grad()
        objective(steps.build(steps.plan(epoch)[0], epoch, 0)).total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            reached[name] = torch.maximum(reached[name], parameter.grad.abs().max())
    largest = defaultdict(float)
    for name, gradient in reached.items():
        largest[part_of(name)] = max(largest[part_of(name)], gradient)
    # Of the part's largest, key biases have below 1e-7, which is rounding, all others above 3e-5.
    unused = {name for name, gradient in reached.items() if gradient <= 1e-6 * largest[part_of(name)]}
    assert unused == {name for name in reached if name.endswith("attention.key.bias") or weighs_one_token(name, model)}


def part_of(name):
    """The attention that a parameter belongs to, or else the model's part."""
    return name.rpartition("attention.")[0] or name.partition(".")[0]


def weighs_one_token(name, model):
    """With one coarse view, a softmax over it is 1 whatever these parameters are."""
    weighing = (
        "pools.0.score",
        "fine_to_coarse.attention.query",
        "fine_to_coarse.attention.key",
        "fine_to_coarse.query_norm",
    )
    return len(model.config.views) == 1 and any(part in name for part in weighing)


@pytest.mark.parametrize("ablation", ["full", "gru4rec", "separate streams", "sequence fusion", "id only"])
def test_no_leak_from_the_future(ablation, toy_features):
    model = build(toy_features(), **ABLATIONS[ablation]).eval()
    tokens, valid = (
        torch.randn(model.config.stream_count, 3, 7, model.config.stream_width),
        torch.ones(3, 7, dtype=torch.bool),
    )
    before = model.encode_sequences(tokens, valid)
    for changed in range(1, 7):
        altered = tokens.clone()
        altered[:, :, changed:] = torch.randn_like(altered[:, :, changed:])
        after = model.encode_sequences(altered, valid)
        torch.testing.assert_close(after[:, :changed], before[:, :changed])


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_neither_batch_nor_padding_changes_a_vector(ablation, toy_features, toy_sequences):
    features, sequences = toy_features(), toy_sequences(users=9)
    model = build(features, **ABLATIONS[ablation])
    items = encode_items(model, features)
    assert items.shape == (24, SMALL["width"])  # one stream of 8 numbers, or two of 4
    assert items.dtype == np.float32
    np.testing.assert_allclose(encode_items(model, features, batch_size=5), items, atol=1e-5)
    users = encode_sequences(model.train(), items, sequences)  # serving drops nothing
    np.testing.assert_allclose(encode_sequences(model, items, sequences, batch_size=2), users, atol=1e-5)
    alone = [encode_sequences(model, items, select_users(sequences, np.array([user]))) for user in range(9)]
    np.testing.assert_allclose(np.concatenate(alone), users, atol=1e-5)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_serves_nearly_the_same_vectors(ablation, dtype, toy_features, toy_sequences):
    features, sequences = toy_features(), toy_sequences(users=9)
    model = build(features, **ABLATIONS[ablation])
    items = encode_items(model, features)
    users = encode_sequences(model, items, sequences)
    half_items = encode_items(model.to(dtype), features)
    half_users = encode_sequences(model, half_items, sequences)
    assert half_items.dtype == half_users.dtype == np.float32
    bound = 8 * torch.finfo(dtype).eps  # of the largest number
    np.testing.assert_allclose(half_items, items, rtol=0, atol=bound * np.abs(items).max())
    np.testing.assert_allclose(half_users, users, rtol=0, atol=bound * np.abs(users).max())


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_item_order_does_not_change_an_items_vector(ablation, toy_features):
    features = toy_features()
    model = build(features, **ABLATIONS[ablation]).eval()
    gatherer = gatherer_for(model, features)
    order = np.random.default_rng(0).permutation(24) + 1
    shuffled = model.encode_items(gatherer.gather(order)).streams_SND
    ordered = model.encode_items(gatherer.gather(np.arange(24) + 1)).streams_SND
    torch.testing.assert_close(shuffled, ordered[:, order - 1])


def test_identical_content_gets_identical_vectors_without_ids(toy_features):
    vectors = encode_items(build(toy_features(), id_mode="none"), toy_features())
    np.testing.assert_allclose(vectors[5], vectors[6], atol=1e-6)
    assert np.abs(vectors[5] - vectors[7]).max() > 1e-3


def test_unknown_items_get_the_mean_id_or_the_learned_one(toy_features):
    features = toy_features()
    hidden = build(features, views=(), use_segments=False, id_dropout=0.5)
    learned = hidden.items.identity.table.weight[:1].detach().expand(4, -1)
    np.testing.assert_allclose(encode_items(hidden, features)[20:], learned)
    plain = build(features, views=(), use_segments=False, id_dropout=0.0)
    vectors = encode_items(plain, features)
    np.testing.assert_allclose(vectors[20:], np.tile(vectors[:20].mean(axis=0), (4, 1)), atol=1e-6)


def test_training_alone_hides_a_share_of_the_ids():
    torch.manual_seed(0)
    identity = ItemIdentity(4000, streams=2, stream_width=3, dropout=0.25, corrects_content=False)
    shown_NW = identity.train()(torch.arange(1, 4001), has_unknown=False).transpose(0, 1).flatten(start_dim=1)
    is_unknown_N, is_own_N = ((shown_NW == table_NW).all(dim=1) for table_NW in identity.table.weight.split([1, 4000]))
    assert float(is_unknown_N.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(is_own_N, ~is_unknown_N)
    served_SND = identity.eval()(torch.arange(1, 4001), has_unknown=False)
    assert torch.equal(torch.cat(list(served_SND), dim=1), identity.table.weight[1:])  # the streams side by side


def test_a_backbone_reads_item_vectors_times_the_root_of_their_width(toy_features):
    model, read = build(toy_features()).eval(), []
    model.backbone.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    tokens_SBTD = torch.randn(1, 3, 5, 8)
    model.encode_sequences(tokens_SBTD, torch.ones(3, 5, dtype=torch.bool))
    torch.testing.assert_close(read[0], tokens_SBTD[0] * 8**0.5)


def test_separate_streams_meet_in_the_score_alone(toy_features):
    model = build(toy_features(), streams="separate").eval()
    tokens_SBTD, valid_BT = torch.randn(2, 3, 5, 4), torch.ones(3, 5, dtype=torch.bool)
    before = model.encode_sequences(tokens_SBTD, valid_BT)
    after = model.encode_sequences(torch.stack([tokens_SBTD[0], torch.randn(3, 5, 4)]), valid_BT)
    torch.testing.assert_close(after[..., :4], before[..., :4])
    assert (after[..., 4:] - before[..., 4:]).abs().min() > 1e-6


def test_training_alone_drops_numbers_of_the_text_vectors(toy_features):
    features = toy_features()
    model = build(features, dropout=0.0, id_dropout=0.0, input_dropout=0.5, alignment_weight=0.0)
    items = gatherer_for(model, features).gather(np.arange(24) + 1)
    seen = []
    for adapter in model.items.adapters:
        adapter.layers[2].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    served = model.eval().encode_items(items).streams_SND
    torch.testing.assert_close(model.encode_items(items).streams_SND, served)
    assert not any((vectors_RE == 0).any() for vectors_RE in seen)
    seen.clear()
    trained = torch.stack([model.train().encode_items(items).streams_SND for _ in range(40)])
    assert np.mean([float((vectors_RE == 0).float().mean()) for vectors_RE in seen]) == pytest.approx(0.5, abs=0.03)
    assert trained.std(dim=0).max() > 0.01


def test_only_the_most_recent_events_count(toy_features):
    for backbone, kept in (("sasrec", 12), ("bert4rec", 11), ("gru4rec", 12)):
        model = build(toy_features(), backbone=backbone)
        items = encode_items(model, toy_features())
        long = [20, 21, 22, 23, *range(1, 15)]
        users = encode_sequences(model, items, Sequences.from_histories([long, long[-kept:], long[-kept - 1 :]], "abc"))
        np.testing.assert_allclose(users[0], users[1], atol=1e-5)
        np.testing.assert_allclose(users[0], users[2], atol=1e-5)


def test_a_mask_put_last_asks_for_what_comes_next(toy_features):
    """Distances don't tell before from after: a gap before an event would look like the end after it."""
    model = build(toy_features(), backbone="bert4rec").eval()
    event, mask = torch.randn(8), torch.zeros(8)
    valid_BT = torch.tensor([[True, True, False], [True, True, False]])
    masked_BT = torch.tensor([[True, False, False], [False, True, False]])
    tokens_SBTD = torch.stack([torch.stack([mask, event, mask]), torch.stack([event, mask, mask])])[None]
    before_BTW = model.encode_sequences(tokens_SBTD, valid_BT, masked_BT)
    torch.testing.assert_close(before_BTW[0, 0], before_BTW[1, 1])
    torch.nn.init.normal_(model.last_mask_SD)
    after_BTW = model.encode_sequences(tokens_SBTD, valid_BT, masked_BT)
    torch.testing.assert_close(after_BTW[0, 0], before_BTW[0, 0])
    assert (after_BTW[1, 1] - before_BTW[1, 1]).abs().max() > 1e-3


def test_events_of_items_without_vectors_are_skipped(toy_features):
    for backbone in ("sasrec", "bert4rec", "gru4rec"):
        model = build(toy_features(), backbone=backbone)
        items = encode_items(model, toy_features())
        histories = [[1, 25, 24], [1, 24], [1], [25], []]  # 24 is the last item that has one
        users = encode_sequences(model, items, Sequences.from_histories(histories, "abcde"))
        np.testing.assert_allclose(users[0], users[1], atol=1e-6)
        assert np.abs(users[1] - users[2]).max() > 1e-3
        np.testing.assert_allclose(users[3], users[4], atol=1e-6)
        assert np.isfinite(users).all()
        assert users[4].any() == (backbone == "bert4rec")  # zeros, where there is no mask to answer


def test_vectors_of_another_width_are_refused_with_the_remedy(toy_features, toy_sequences):
    model = build(toy_features())
    with pytest.raises(ValueError, match=r"text vectors of 12 numbers, .* of 10; embed with the encoder"):
        encode_items(model, toy_features(width=10))
    with pytest.raises(ValueError, match=r"item vectors have 5 numbers, the model's have 8; give what encode_items"):
        encode_sequences(model, np.zeros((24, 5), np.float32), toy_sequences())


def test_impossible_configs_are_refused():
    with pytest.raises(ValueError, match="nothing to encode"):
        ModelConfig(views=(), use_segments=False, id_mode="none")
    with pytest.raises(ValueError, match="views names one twice: image, text, image"):
        ModelConfig(views=("image", "text", "image"))
    with pytest.raises(ValueError, match="not divisible by 4: 2 streams of 2 heads"):
        ModelConfig(width=10, heads=2, streams="separate")
    with pytest.raises(ValueError, match="not divisible by 2: 1 streams of 2 heads"):
        ModelConfig(views=(), width=9, heads=2)
    with pytest.raises(ValueError, match="extra"):
        ModelConfig(widht=8)
