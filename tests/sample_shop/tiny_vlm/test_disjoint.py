from dataclasses import replace

import numpy as np

from sample_shop.attributes import draw_look
from sample_shop.tiny_vlm.disjoint import shared_pictures, shared_texts, training_prompts
from sample_shop.tiny_vlm.heldout import Question, held_out_items
from sample_shop.tiny_vlm.pictures import model_pixels
from sample_shop.tiny_vlm.prompts import default_prompt
from sample_shop.tiny_vlm.speaking import SpeakingConfig


def test_a_training_picture_among_the_held_out_is_found():
    items = held_out_items(3)
    training = np.stack([model_pixels(items[1].jpeg), np.zeros_like(model_pixels(items[0].jpeg))])

    assert shared_pictures(training, items) == [1]


def test_a_training_text_among_the_held_out_is_found():
    items = held_out_items(3)
    other_title = replace(items[0], text=replace(items[0].text, title="Another title"))
    prompts = [Question(item, default_prompt("text")).user_text for item in (other_title, items[2])]

    assert shared_texts(prompts, items) == ([0, 2], [2])


def test_what_was_trained_on_is_drawn_again_from_its_seeds():
    looks = [draw_look(np.random.default_rng(number)) for number in range(4)]
    config = SpeakingConfig(steps=2, captions=1, summaries=2, joints=1)

    first, again = (list(training_prompts(looks, [config])) for _ in range(2))

    assert len(first) == 2 * (1 + 2 + 1)
    assert first == again
