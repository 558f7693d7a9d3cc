"""What is served: item vectors and user vectors whose inner product is the score, as FAISS computes it."""

import numpy as np
import torch

from dmesr_model.batches import pad_histories
from dmesr_model.features import PAD_INDEX, ItemFeatures
from dmesr_model.item_batches import ItemGatherer
from dmesr_model.model import DMESR
from dmesr_model.sequences import Sequences, keep_events


def encode_items(model: DMESR, features: ItemFeatures, batch_size: int = 1024) -> np.ndarray:
    """Vectors of all items of the features, float32 contiguous [N, D], D = model.vector_width.

    The items need not be those the model was trained on: one that training never saw gets the unknown ID, and its
    content. Computed in the precision of the model's parameters. Raises ValueError naming an item with a NaN or
    infinite text vector, or a view the features lack.
    """
    return encode_gathered(model, gatherer_for(model, features), batch_size)


@torch.no_grad()
def encode_gathered(model: DMESR, gatherer: ItemGatherer, batch_size: int = 1024) -> np.ndarray:
    """`encode_items` with a gatherer at hand, which may have the text vectors on the model's device."""
    model.eval()
    device = next(model.parameters()).device
    item_count = gatherer.features.item_count
    vectors_ND = np.empty((item_count, model.vector_width), dtype=np.float32)
    for start in range(0, item_count, batch_size):
        item_index = np.arange(start, min(start + batch_size, item_count)) + 1
        streams_SND = model.encode_items(gatherer.gather(item_index).to(device)).streams_SND
        vectors_ND[item_index - 1] = streams_SND.transpose(0, 1).flatten(start_dim=1).float().cpu().numpy()
    return vectors_ND


@torch.no_grad()
def encode_sequences(
    model: DMESR, item_vectors_ND: np.ndarray, sequences: Sequences, batch_size: int = 512
) -> np.ndarray:
    """Vectors of all users of the sequences, float32 contiguous [U, D].

    The users need not be known to the model. Events of items beyond the N of `item_vectors_ND` are skipped. A user with
    no event left gets zeros from a causal backbone (every item ties), and BERT4Rec's answer to a lone mask. Raises
    ValueError for item vectors of another width than the model's.

    Args:
        item_vectors_ND: what `encode_items` returned for the features that item_index refers to.
    """
    model.eval()
    item_vectors_ND = np.asarray(item_vectors_ND, dtype=np.float32)
    if item_vectors_ND.shape[1] != model.vector_width:
        raise ValueError(
            f"item vectors have {item_vectors_ND.shape[1]} numbers, the model's have {model.vector_width}; give what "
            "encode_items made with this model"
        )
    known = keep_events(sequences, np.asarray(sequences.item_index) <= len(item_vectors_ND))
    users_UD = np.zeros((known.user_count, model.vector_width), dtype=np.float32)
    by_length = np.argsort(known.lengths, kind="stable")
    for start in range(0, known.user_count, batch_size):
        users_B = by_length[start : start + batch_size]
        users_UD[users_B] = _encode_users(model, item_vectors_ND, pad_histories(known, users_B, model.history_length))
    return users_UD


def gatherer_for(model: DMESR, features: ItemFeatures) -> ItemGatherer:
    """Raises ValueError where the features' encoder width or views don't fit the model."""
    config = model.config
    reads_text = bool(config.views) or config.use_segments
    if reads_text and features.encoder_width != model.encoder_width:
        raise ValueError(
            f"the model reads text vectors of {model.encoder_width} numbers, the features hold ones of "
            f"{features.encoder_width}; embed with the encoder that it was trained on"
        )
    return ItemGatherer(features, config.views or (), config.use_segments, model.item_ids)


def _encode_users(model: DMESR, item_vectors_ND: np.ndarray, history_BT: np.ndarray) -> np.ndarray:
    """[B, D] of histories padded on the right."""
    a_parameter = next(model.parameters())
    device = a_parameter.device
    length_B = (history_BT != PAD_INDEX).sum(axis=1)
    masked_BT = None
    if model.mask_SD is not None:
        history_BT = np.pad(history_BT, ((0, 0), (0, 1)), constant_values=PAD_INDEX)
        masked_BT = np.arange(history_BT.shape[1]) == length_B[:, None]
        last_B, known_B = length_B, np.ones(len(length_B), dtype=bool)
        valid_BT = (history_BT != PAD_INDEX) | masked_BT
    else:
        last_B, known_B = np.maximum(length_B - 1, 0), length_B > 0
        valid_BT = history_BT != PAD_INDEX
    if len(item_vectors_ND) == 0:  # all there is then is padding
        item_vectors_ND = np.zeros((1, model.vector_width), dtype=np.float32)
    rows_BTW = item_vectors_ND[np.maximum(history_BT - 1, 0)]
    tokens_BTSD = torch.from_numpy(rows_BTW).to(a_parameter).unflatten(-1, (model.config.stream_count, -1))
    users_BTW = model.encode_sequences(
        tokens_BTSD.permute(2, 0, 1, 3),
        torch.from_numpy(valid_BT).to(device),
        None if masked_BT is None else torch.from_numpy(masked_BT).to(device),
    )
    last_BW = users_BTW[torch.arange(len(last_B), device=device), torch.from_numpy(last_B).to(device)]
    return np.where(known_B[:, None], last_BW.float().cpu().numpy(), np.float32(0))
