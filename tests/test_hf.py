"""The menu as a model of transformers: files, generation, training, evaluation."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastweights.cli import main
from fastweights.generate import generate, keep_top_k, keep_top_p
from fastweights.models.menu import FEED_FORWARDS, SEQUENCE_LAYERS
from fastweights.tasks.text.byte_pairs import BytePairTokenizer
from fastweights.tasks.text.tokenizer import ByteTokenizer
from fastweights.train.config import parse_config
from fastweights.train.loop import train

transformers = pytest.importorskip("transformers")
hf = pytest.importorskip("fastweights.hf")

VOCABULARY, LENGTH = 11, 6
SIZES: dict[str, dict[str, Any]] = {
    "top_k": {"top_k": 3},
    "product_key_memory": {"num_subkeys": 4, "top_k": 3},
    "dense_product_key_memory": {"num_subkeys": 4},
}
EXPERTS = {"num_experts": 4, "expert_dim": 4}
VARIANTS: dict[str, dict[str, Any]] = {
    **{layer: {"layer": layer} for layer in SEQUENCE_LAYERS},
    **{
        name: {"feed_forward": name, "feed_forward_options": SIZES.get(name, EXPERTS)}
        for name in FEED_FORWARDS
        if name != "dense"
    },
    "convolved": {"convolution_size": 3},
    "favor": {"layer": "linear_transformer", "layer_options": {"feature_map": "favor"}},
    "one_hot": {"embedding": "one_hot"},
    "tied": {"embedding": "tied", "final_norm": True},
    "positions": {"positions": "sinusoidal", "scale_embedding": True},
    "adaptive": {"embedding": "tied", "adaptive_cutoffs": [4, 7]},
}


def make_model(**values: Any) -> Any:
    """In float64, with a separator that is never drawn by chance alone."""
    config = hf.FastWeightsConfig(VOCABULARY, **{"dim": 12, "num_layers": 2, **values})
    return hf.FastWeightsForCausalLM(config, torch.Generator().manual_seed(0)).double().eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows and their mask: 3, 0 and 5 positions of padding in front."""
    ids = torch.randint(VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    return ids, (torch.arange(LENGTH) >= torch.tensor([[3], [0], [5]])).long()


@pytest.mark.parametrize("name", VARIANTS)
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    model, (ids, _) = make_model(**VARIANTS[name]), batch()
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    assert type(loaded) is type(model)
    assert loaded.config.sequence_model() == model.config.sequence_model()
    weights = loaded.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], x) for name, x in model.state_dict().items())
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)
    trained = [(name, x.requires_grad) for name, x in loaded.named_parameters()]
    assert trained == [(name, x.requires_grad) for name, x in model.named_parameters()]


@pytest.mark.parametrize("name", VARIANTS)
def test_padded_batches_equal_our_generation(name):
    model, (ids, mask) = make_model(**VARIANTS[name]), batch()
    found = model.generate(
        ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0
    )
    for row, real, tokens in zip(ids, mask.bool(), found, strict=True):
        want = list(generate(model.model, row[real][None], 5, temperature=0))
        assert tokens[LENGTH:].tolist() == [int(token) for token in want]


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
def test_beam_search_with_a_state_equals_the_whole_sequence_again(layer):
    model, (ids, mask) = make_model(layer=layer), batch()

    def search(**values: Any) -> Any:
        return model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=5,
            num_beams=3,
            num_return_sequences=2,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=4,
            return_dict_in_generate=True,
            output_scores=True,
            **values,
        )

    found, want = search(), search(use_cache=False)
    assert torch.equal(found.sequences, want.sequences)
    torch.testing.assert_close(found.sequences_scores, want.sequences_scores)


def test_sampling_equals_ours():
    model, (ids, _) = make_model(), batch()
    values: dict[str, Any] = {"temperature": 1.3, "top_k": 5, "top_p": 0.8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=True, **values
        )
        torch.manual_seed(0)
        want = torch.stack(list(generate(model.model, ids, 8, **values)), 1)
    assert torch.equal(found[:, LENGTH:], want)


def test_a_prompt_in_pieces():
    model, (ids, mask) = make_model(layer="softmax_attention"), batch()
    values = {"attention_mask": mask, "max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    pieces = {"prefill_chunk_size": 4, "past_key_values": hf.FastWeightsCache()}
    assert torch.equal(model.generate(ids, **values, **pieces), model.generate(ids, **values))


@pytest.mark.parametrize("top", [1, 3, 99])
def test_top_k_is_that_of_transformers(top, generator):
    scores = torch.randn(20, 9, generator=generator).mul(2).round()  # with equal ones
    want = transformers.TopKLogitsWarper(top)(None, scores)
    assert torch.equal(keep_top_k(scores, top), want)


@pytest.mark.parametrize("top", [0.01, 0.5, 0.99, 1.0])
def test_top_p_is_that_of_transformers(top, generator):
    scores = torch.randn(20, 9, generator=generator)
    assert torch.equal(keep_top_p(scores, top), transformers.TopPLogitsWarper(top)(None, scores))


@pytest.mark.parametrize("layer", SEQUENCE_LAYERS)
@pytest.mark.parametrize("use_cache", [False, True])
def test_padding_anywhere_changes_nothing(layer, use_cache):
    """Scores, loss and gradients, padding in front, behind and between."""
    model, (ids, _) = make_model(layer=layer), batch()
    mask = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 1]]).bool()
    output = model(ids, attention_mask=mask.long(), use_cache=use_cache)
    want = torch.cat(
        [model(row[real][None]).logits[0] for row, real in zip(ids, mask, strict=True)]
    )
    torch.testing.assert_close(output.logits[mask], want)
    assert not output.logits[~mask].any()
    parameters = [x for x in model.parameters() if x.requires_grad]
    got = torch.autograd.grad(output.logits.square().sum(), parameters, allow_unused=True)
    torch.testing.assert_close(
        got, torch.autograd.grad(want.square().sum(), parameters, allow_unused=True)
    )


def test_the_last_scores_alone():
    model, (ids, mask) = make_model(), batch()
    whole = model(ids, attention_mask=mask)
    for use_cache in (False, True):
        last = model(ids, attention_mask=mask, logits_to_keep=2, use_cache=use_cache)
        torch.testing.assert_close(last.logits, whole.logits[:, -2:])


def test_scores_before_padding_behind_need_no_mask():
    """lm-evaluation-harness pads behind and gives no mask."""
    model, (ids, _) = make_model(), batch()
    short = model(ids[:, :4]).logits
    torch.testing.assert_close(model(ids).logits[:, :4], short)


def test_the_loss_is_the_mean_over_next_tokens_and_the_balance_loss():
    model, (ids, mask) = make_model(feed_forward="sigma_moe", feed_forward_options=EXPERTS), batch()
    found = model(ids, attention_mask=mask, labels=ids).loss
    rows = [row[real] for row, real in zip(ids, mask.bool(), strict=True)]
    logits = [model(row[None]).logits[0, :-1] for row in rows]
    want = torch.nn.functional.cross_entropy(
        torch.cat(logits), torch.cat([row[1:] for row in rows])
    )
    first = mask.int().argsort(dim=1, descending=True, stable=True)
    want = want + model.model(ids.gather(1, first)).balance_loss
    torch.testing.assert_close(found, want, check_dtype=False, rtol=1e-6, atol=0)


def test_the_trainer_trains_it(tmp_path):
    pytest.importorskip("accelerate")
    model = make_model(layer="delta_net", dim=16).float()
    rows = [{"input_ids": row, "labels": row} for row in (torch.arange(64) % 8).view(4, 16)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=40,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    before = trainer.evaluate(rows)["eval_loss"]
    with torch.random.fork_rng():
        trainer.train()
    assert trainer.evaluate(rows)["eval_loss"] < 0.2 < 1 < before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 0}, "dim: must be > 0, got 0"),
        ({"embedding": "tide"}, "embedding: must be 'learned', 'one_hot' or 'tied', got 'tide'"),
    ],
)
def test_bad_configurations(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        hf.FastWeightsConfig(VOCABULARY, **values)


def test_the_names_of_transformers():
    config = hf.FastWeightsConfig(VOCABULARY, hidden_size=24, num_hidden_layers=3)
    assert (config.dim, config.num_layers) == (24, 3)


@pytest.mark.parametrize("embedding", ["learned", "tied"])
@pytest.mark.parametrize("size", [VOCABULARY + 4, VOCABULARY - 2])
def test_another_number_of_tokens(embedding, size, tmp_path):
    """The old tokens keep their scores; the model is saved, trained and generates with the new
    number."""
    model, (ids, _) = make_model(embedding=embedding), batch()
    kept = min(size, VOCABULARY)
    ids = ids % kept
    with torch.no_grad():
        before = model(ids).logits
    assert model.resize_token_embeddings(size) is model.get_input_embeddings()
    assert model.config.vocab_size == size
    after = model(ids, labels=ids)
    assert after.logits.shape[-1] == size
    torch.testing.assert_close(after.logits[..., :kept], before[..., :kept])
    after.loss.backward()
    rows = model.model.embedding.weight.grad
    assert rows.shape == (size, 12) and rows.abs().sum() > 0
    assert model.generate(ids, max_new_tokens=2, pad_token_id=0).max() < size
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(ids).logits, after.logits)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("one_hot", {}, "not with embedding='one_hot'"),
        ("adaptive", {}, "not with adaptive_cutoffs"),
        ("tied", {"mean_resizing": False}, "mean_resizing must be True, got False"),
    ],
)
def test_a_number_of_tokens_that_cannot_change(name, options, message):
    with pytest.raises(ValueError, match=f"^resize_token_embeddings: {message}$"):
        make_model(**VARIANTS[name]).resize_token_embeddings(12, **options)


def test_a_mask_that_is_too_short():
    ids, mask = batch()
    with pytest.raises(ValueError, match=r"got \[3, 4\] for input_ids \[3, 6\]"):
        make_model()(ids, attention_mask=mask[:, :4])


def test_a_file_without_all_weights_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    make_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.output.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the file has no weights bias of Linear"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path)


def test_another_cache_is_refused():
    with pytest.raises(ValueError, match="must be a FastWeightsCache, got DynamicCache"):
        make_model()(batch()[0], past_key_values=transformers.DynamicCache())


@pytest.mark.parametrize("text", ["", " a  b\n\tc ", "Ā né € 😀", "<|x|> it's 12'000."])
def test_the_tokenizer_of_bytes(text):
    ours, theirs = ByteTokenizer(), hf.tokenizer_for(ByteTokenizer())
    assert theirs(text)["input_ids"] == ours.encode(text)
    assert theirs.decode(ours.encode(text)) == text
    assert len(theirs) == ours.vocab_size
    assert theirs.eos_token_id == theirs.pad_token_id == ours.separator


def test_the_tokenizer_of_byte_pairs():
    ours = BytePairTokenizer.train(["the cat sat on the mat, the rat sat"] * 3, 265)
    theirs = hf.tokenizer_for(ours)
    for text in ("the mat", " né\n the"):
        assert theirs(text)["input_ids"] == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert theirs.eos_token_id == theirs.pad_token_id == ours.separator


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on four letters that repeat, and its folder for transformers."""
    folder = tmp_path_factory.mktemp("hf")
    text = folder / "text.txt"
    text.write_text("abcd" * 500, encoding="utf-8")
    config = parse_config(
        {
            "task": {"kind": "text", "text": str(text), "context_length": 8},
            "model": {"layer": "delta_net", "dim": 16, "num_layers": 1, "ff_dim": 16},
            "training": {"batch_size": 4, "max_steps": 60, "evaluate_every": 30, "lr": 1e-2},
            "device": "cpu",
            "num_threads": 1,
        }
    )
    train(config, folder / "run", progress=False)
    assert main(["export", str(folder / "run"), "--out", str(folder / "out")]) == 0
    return folder / "run", folder / "out"


def test_an_exported_run_writes_what_the_run_writes(exported):
    model = transformers.AutoModelForCausalLM.from_pretrained(exported[1])
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported[1])
    inputs = tokenizer(["ab", "abcda"], return_tensors="pt", padding=True)
    found = model.generate(**inputs, max_new_tokens=5, do_sample=False)
    assert tokenizer.batch_decode(found, skip_special_tokens=True) == ["abcdabc", "abcdabcdab"]


def test_exporting_overwrites_nothing(exported, capsys):
    assert main(["export", str(exported[0]), "--out", str(exported[1])]) == 2
    assert "is not a new or empty folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_lm_evaluation_harness_scores_it(exported, tmp_path, monkeypatch):
    """A local multiple choice: which letter goes on."""
    pytest.importorskip("lm_eval")
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    questions = [{"text": "abcdabcd"[: 4 + i], "answer": i} for i in range(4)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    task = {
        "task": "next_letter",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": ["a", "b", "c", "d"],
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "next_letter.yaml").write_text(json.dumps(task), encoding="utf-8")
    harness = HFLM(pretrained=str(exported[1]), device="cpu", batch_size=3, max_length=32)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = simple_evaluate(harness, tasks=["next_letter"], task_manager=manager, bootstrap_iters=0)
    assert found["results"]["next_letter"]["acc,none"] == 1.0
