"""What models of each layer can and cannot tell apart, whatever their weights.

The claims are numbered as in docs/theory.md.
"""

import pytest
import torch
from torch.nn.functional import layer_norm

from fastweights.layers.delta_net import DeltaNet
from fastweights.layers.e_lstm import ELSTM
from fastweights.layers.feature_map import FeatureMap
from fastweights.layers.layer import SequenceLayer
from fastweights.layers.linear_transformer import LinearTransformer
from fastweights.layers.recurrent_delta_net import RecurrentDeltaNet
from fastweights.layers.softmax_attention import SoftmaxAttention
from fastweights.layers.srwm import SRWM
from fastweights.models.menu import build_model
from fastweights.models.sequence_model import SequenceModel
from fastweights.tasks.formal.menu import LANGUAGES
from fastweights.tasks.formal.splits import make_splits
from fastweights.train.accuracy import evaluate_examples
from fastweights.train.config import SequenceModelConfig

DIM = 16


def make_model(layer: str, **options: object) -> SequenceModel:
    config = SequenceModelConfig.model_validate(
        {"layer": layer, "dim": DIM, "ff_dim": DIM, **options}
    )
    return build_model(config, 4, 2, torch.Generator().manual_seed(0)).double()


def last_output(kind: type[SequenceLayer], prefix: str, embedding: torch.Tensor) -> torch.Tensor:
    """The last output of one random layer on a prefix of reset Dyck-1."""
    layer = kind(DIM, generator=torch.Generator().manual_seed(0)).double()
    tokens = torch.tensor([LANGUAGES["reset_dyck_1"].symbols.index(symbol) for symbol in prefix])
    return layer(embedding[tokens][None])[0][0, -1]


@pytest.mark.parametrize(
    ("kind", "order_counts"),
    [
        (SoftmaxAttention, False),
        (LinearTransformer, False),
        (DeltaNet, True),
        (RecurrentDeltaNet, True),
        (SRWM, True),
    ],
)
def test_t2_attention_without_positions_sees_a_multiset_and_the_last_token(kind, order_counts):
    """Two prefixes with the same multiset, the same last token and different labels."""
    language = LANGUAGES["reset_dyck_1"]
    first, second = "(1()", "1(()"
    assert sorted(first) == sorted(second) and first[-1] == second[-1]
    assert (language.label(first)[-1], language.label(second)[-1]) == ("0", "1")
    g = torch.Generator().manual_seed(1)
    embedding = torch.randn(3, DIM, generator=g, dtype=torch.float64)
    moved = (last_output(kind, first, embedding) - last_output(kind, second, embedding)).norm()
    if order_counts:
        assert moved > 1e-3
    else:
        assert moved < 1e-12


@pytest.mark.parametrize("num_layers", [1, 2, 4])
@pytest.mark.parametrize("block", ["post_norm", "pre_norm"])
def test_t3_a_transformer_without_positions_scores_nothing_on_aa_star(num_layers, block):
    """On a^t every layer sees copies of one token: its outputs are the same at every step."""
    model = make_model("softmax_attention", num_layers=num_layers, block=block)
    logits = model(torch.zeros(1, 100, dtype=torch.long)).logits[0]
    assert (logits - logits[0]).abs().max() < 1e-12
    language = LANGUAGES["aa_star"]
    examples = make_splits(language, "strict", seed=1).bin0
    accuracy = evaluate_examples(model, examples, language.symbols, language.labels)
    assert accuracy.sequence_accuracy == 0.0


def test_t7_the_e_lstm_cannot_count_far(generator):
    """Its cells stay within -1 and 1, so the steps of a counter of a^t become ever smaller."""
    layer = ELSTM(DIM, generator=generator).double()
    x = 3 * torch.randn(DIM, generator=generator, dtype=torch.float64).expand(1, 2000, DIM)
    state, cells = None, []
    for x_t in x.split(1, 1):
        _, state = layer(x_t, state)
        cells.append(state.cell)
    moved = (torch.stack(cells[1:]) - torch.stack(cells[:-1])).abs().amax((1, 2))
    assert torch.stack(cells).abs().max() < 1
    assert moved[-1] < 1e-12 < moved[0]


def test_t4_linear_transformer_increments_vanish_on_a_unary_string():
    """y_t = t c, so the normed residual stream moves by O(1 / t^2)."""
    g = torch.Generator().manual_seed(0)
    layer = LinearTransformer(DIM, generator=g).double()
    x = torch.randn(DIM, generator=g, dtype=torch.float64).expand(1, 401, DIM)
    y = layer(x)[0][0]
    steps = torch.arange(1, 402, dtype=torch.float64)
    torch.testing.assert_close(y, steps[:, None] * y[0])
    normed = layer_norm(x[0] + y, (DIM,))
    moved = (normed[1:] - normed[:-1]).norm(dim=-1)
    at = {t: moved[t - 1].item() for t in (10, 50, 100, 400)}
    assert at[10] > at[50] > at[100] > at[400]
    assert at[400] / at[100] == pytest.approx((100 / 400) ** 2, rel=0.1)


def test_t10_sum_normalised_keys_cannot_flip_a_memory():
    """The transition I - beta k k^T of the delta rule has the eigenvalue 1 - beta |k|^2. With
    beta = 2 it is -1 for keys of length 1; keys that sum to 1 are shorter unless one-hot."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 8, generator=g, dtype=torch.float64)

    def eigenvalue(name: str, normalization: str, x: torch.Tensor) -> torch.Tensor:
        key = FeatureMap(8, name, normalization, 1, 1, None)(x)
        transition = torch.eye(8) - 2 * key[:, :, None] * key[:, None, :]
        return torch.linalg.eigvalsh(transition).min(-1).values

    torch.testing.assert_close(eigenvalue("silu", "l2", x), -torch.ones(1000).double())
    of_sum = eigenvalue("elu_plus_one", "sum", x)
    assert of_sum.min() > -1 and of_sum.mean() > 0
    nearly_one_hot = torch.full((1, 8), -30.0, dtype=torch.float64)
    nearly_one_hot[0, 0] = 30.0
    assert eigenvalue("elu_plus_one", "sum", nearly_one_hot).item() == pytest.approx(-1, abs=1e-9)
