"""What counts in every way of reading a text, beside one call of the model a token."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastweights.models.menu import SEQUENCE_LAYERS, build_model
from fastweights.models.sequence_model import SequenceLosses, SequenceModel
from fastweights.train import text_positions, text_scores
from fastweights.train.config import SequenceModelConfig
from fastweights.train.text_positions import last_positions, loss_by_position
from fastweights.train.text_scores import Reading, TextSize, num_counted, text_losses

V = 11
LENGTHS = [9, 10, 33, 34, 40]  # of texts read 8 tokens at a time


class Uniform(torch.nn.Module):
    """Every token is as likely."""

    def forward(
        self, inputs: Tensor, state: Any = None, at: Tensor | None = None, targets: Any = None
    ) -> SequenceLosses:
        nats = torch.full(inputs.shape, math.log(V))
        return SequenceLosses(nats if at is None else nats[at], (), torch.zeros(()))


@pytest.fixture(autouse=True)
def _small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several calls of the model, the last one smaller."""
    for module in (text_scores, text_positions):
        monkeypatch.setattr(module, "TOKENS_A_PASS", 24)


def text(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(V, (length,), generator=generator).to(torch.uint8)


def model(layer: str = "delta_net", **options: Any) -> SequenceModel:
    """In float64, so that two orders of the same sums agree to many digits."""
    settings = SequenceModelConfig(layer=layer, layer_options=options, dim=8, num_layers=2)
    return build_model(settings, V, V, torch.Generator().manual_seed(1)).double().eval()


def losses(model: torch.nn.Module, tokens: Tensor, reading: Reading) -> Tensor:
    """[N], in the order of the calls."""
    return torch.cat([part.flatten() for part in text_losses(model, tokens, reading, "cpu")])


def one_call(model: SequenceModel, tokens: Tensor) -> Tensor:
    """[N - 1]: losses of a text in one call."""
    with torch.inference_mode():
        return model.losses(tokens[None, :-1].long(), tokens[None, 1:].long()).nats[0]


READINGS = [
    Reading("segments", 8),
    Reading("carried", 8),
    Reading("carried", 8, num_lanes=3),
    Reading("carried", 8, num_lanes=100),
    *(Reading("sliding", 8, stride=stride) for stride in (1, 3, 7, 8)),
]


@pytest.mark.parametrize("reading", READINGS, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_uniform_model_loses_the_logarithm_of_its_vocabulary(reading, length):
    heard = []
    found = text_scores.text_scores(
        Uniform(),
        text(length),
        reading,
        TextSize(num_tokens=100, num_bytes=300, num_characters=200),
        "cpu",
        lambda *progress: heard.append(progress),
    )
    assert found["nats_per_token"] == pytest.approx(math.log(V), rel=1e-6)
    assert found["perplexity"] == pytest.approx(V, rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(math.log2(V) / 3, rel=1e-6)
    assert found["bits_per_character"] == pytest.approx(math.log2(V) / 2, rel=1e-6)
    assert found["num_tokens"] == num_counted(length, reading)
    assert heard[-1] == (found["num_tokens"], found["num_tokens"])


def test_counts_by_hand():
    assert num_counted(34, Reading("segments", 8)) == 32
    assert num_counted(34, Reading("carried", 8)) == 33
    assert num_counted(34, Reading("carried", 8, num_lanes=3)) == 30
    assert num_counted(34, Reading("sliding", 8)) == 33


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_carried_equals_one_long_pass(layer):
    tokens, whole = text(35), model(layer)
    want = one_call(whole, tokens)
    for length in (1, 8, 34):
        torch.testing.assert_close(losses(whole, tokens, Reading("carried", length)), want)


def test_a_lane_is_a_text_of_its_own():
    tokens, whole = text(35), model()
    got = losses(whole, tokens, Reading("carried", 4, num_lanes=2))
    want = torch.stack([one_call(whole, tokens[:17]), one_call(whole, tokens[17:34])])
    torch.testing.assert_close(got.sort().values, want.flatten().sort().values)


def test_a_short_memory_sees_the_newest_inputs():
    """With the memory of one piece, a piece sees the one before."""
    tokens = text(25)
    for layer in ("transformer_xl", "softmax_attention"):
        short = model(layer, memory_length=8)
        got = losses(short, tokens, Reading("carried", 8))
        torch.testing.assert_close(got[:16], one_call(short, tokens[:17]))
        assert not torch.allclose(got[16:], one_call(short, tokens)[16:])


@pytest.mark.parametrize("length", LENGTHS)
def test_segments_one_by_one(length):
    tokens, whole = text(length), model()
    starts = range(0, length - 8, 8)
    want = torch.cat([one_call(whole, tokens[start : start + 9]) for start in starts])
    torch.testing.assert_close(losses(whole, tokens, Reading("segments", 8)), want)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("stride", [1, 3, 8])
def test_sliding_token_by_token(length, stride):
    """Each token from the first window that reaches it, cut at the end of the text."""
    tokens, whole = text(length), model()
    want = [*one_call(whole, tokens[:9])]
    for target in range(9, length):
        end = min(9 + stride * -(-(target - 8) // stride), length)
        window = one_call(whole, tokens[end - 9 : end])
        want.append(window[target - end])
    torch.testing.assert_close(
        losses(whole, tokens, Reading("sliding", 8, stride)), torch.stack(want)
    )


def test_windows_side_by_side_are_segments():
    tokens, whole = text(33), model()
    torch.testing.assert_close(
        losses(whole, tokens, Reading("sliding", 8, stride=8)),
        losses(whole, tokens, Reading("segments", 8)),
    )


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        (Reading("segments", 9), "context_length 9 needs a text of at least 10 tokens, got one of"),
        (Reading("carried", 0), "context_length must be >= 1, got 0"),
        (Reading("carried", 2, num_lanes=0), "num_lanes must be >= 1, got 0"),
        (Reading("sliding", 4, stride=5), "stride must be at most context_length = 4, got 5"),
        (Reading("sliding", 4, stride=0), "stride must be >= 1, got 0"),
    ],
)
def test_a_reading_that_does_not_fit(reading, message):
    with pytest.raises(ValueError, match=message):
        losses(Uniform(), text(9), reading)


def test_what_is_not_finite():
    class Lost(Uniform):
        def forward(self, *args: Any) -> SequenceLosses:
            found = super().forward(*args)
            return found._replace(nats=found.nats * 1000)

    size = TextSize(9, 9, 9)
    found = text_scores.text_scores(Lost(), text(9), Reading("segments", 8), size, "cpu")
    assert found["perplexity"] is None and found["nats_per_token"] > 1000


def test_the_mode_of_the_model_is_put_back():
    trained = model().train()
    losses(trained, text(20), Reading("segments", 8))
    assert trained.training


def test_buckets_of_positions():
    assert last_positions(8, 32) == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32]
    assert last_positions(10, 15) == [1, 2, 4, 5, 7, 10, 14, 15]
    assert last_positions(8, 5) == [1, 2, 3, 4, 5]
    assert last_positions(1, 1) == [1]


def test_loss_by_position_window_by_window(monkeypatch):
    monkeypatch.setattr(text_positions, "TOKENS_AT_MOST", 36)
    tokens, whole = text(99), model()
    heard = []
    got = loss_by_position(whole, tokens, 4, 12, "cpu", lambda *progress: heard.append(progress))
    windows = torch.stack([one_call(whole, tokens[start : start + 13]) for start in (0, 24, 60)])
    ends = [1, 2, 3, 4, 6, 8, 11, 12]
    assert (got["num_windows"], got["last_position"]) == (3, ends)
    assert (got["context_length"], got["window_length"], heard[-1]) == (4, 12, (3, 3))
    for bucket, (first, last) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        means = windows[:, first:last].mean(1)
        assert got["nats_per_token"][bucket] == pytest.approx(means.mean().item())
        error = (means.var() / 3).sqrt().item()
        assert got["standard_error"][bucket] == pytest.approx(error)


def test_loss_by_position_of_a_short_text():
    uniform = loss_by_position(Uniform(), text(17), 2, 8, "cpu")
    assert uniform["nats_per_token"] == pytest.approx([math.log(V)] * 6)
    assert uniform["standard_error"] == pytest.approx([0] * 6)
    with pytest.raises(ValueError, match="needs two of them: a text of at least 17 tokens, got"):
        loss_by_position(Uniform(), text(16), 2, 8, "cpu")
