"""The whole menu as one model of Hugging Face transformers.

Importing this registers `FastWeightsConfig` and `FastWeightsForCausalLM` with the Auto classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from fastweights.evaluate import CheckpointName, load_text_run
from fastweights.models.menu import build_model
from fastweights.models.row_states import RowStates
from fastweights.tasks.text.byte_pairs import BytePairTokenizer
from fastweights.tasks.text.tokenizer import ByteTokenizer, Tokenizer
from fastweights.train.config import Device, SequenceModelConfig
from fastweights.train.messages import validation_errors_one_line

try:
    import tokenizers
    import transformers
except ImportError as error:
    raise ImportError(f"fastweights.hf needs {error.name}: install the extra `hf`") from None
from transformers.modeling_outputs import CausalLMOutputWithPast

FIELDS = tuple(name for name in SequenceModelConfig.model_fields if name != "kind")
SEPARATOR_TEXT = "<|separator|>"


class FastWeightsConfig(transformers.PreTrainedConfig):
    """vocab_size and the fields of `SequenceModelConfig`, under their names; transformers also
    finds `hidden_size` and `num_hidden_layers`.

    Raises ValueError, in one line, for values that do not fit.
    """

    model_type = "fastweights"
    attribute_map: ClassVar = {"hidden_size": "dim", "num_hidden_layers": "num_layers"}

    def __init__(self, vocab_size: int = 256, **values: Any) -> None:
        for theirs, ours in self.attribute_map.items():
            if theirs in values:
                values[ours] = values.pop(theirs)
        model = _sequence_model({name: values.pop(name) for name in FIELDS if name in values})
        super().__init__(**values)
        self.vocab_size = vocab_size
        for name in FIELDS:
            setattr(self, name, getattr(model, name))

    def sequence_model(self) -> SequenceModelConfig:
        """The model without its vocabulary."""
        return _sequence_model({name: getattr(self, name) for name in FIELDS})


class FastWeightsCache(RowStates):
    """What `generate` keeps between steps, as `past_key_values`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.is_compileable = False

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of a row so far, padding included."""
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beam search: row i goes on from row `beam_idx[i]`."""
        self.select(beam_idx.tolist())


class FastWeightsForCausalLM(transformers.PreTrainedModel, transformers.GenerationMixin):
    """A `SequenceModel` that scores the next token.

    Args:
        config: what to build.
        generator: of the initial weights; PyTorch's default one if None.
    """

    config_class = FastWeightsConfig
    _is_stateful = True  # a state cannot go back to an earlier token

    def __init__(self, config: FastWeightsConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        self._drawn = False
        sizes = config.vocab_size, config.vocab_size
        self.model = build_model(config.sequence_model(), *sizes, generator)
        self.post_init()
        self._drawn = True

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, which would train the one-hot embedding."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # with its loading_info
        model.model.embedding.requires_grad_(model.config.embedding != "one_hot")
        return loaded

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: FastWeightsCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **loss_options: Any,
    ) -> CausalLMOutputWithPast:
        """Scores of the next token at every position.

        Args:
            input_ids: `[B, T]`, the tokens after those of `past_key_values`.
            attention_mask: `[B, T]`, or longer at the front; 0 where there is no token. Such a
                position is left out, wherever it is, and has scores of 0.
            past_key_values: what an earlier call returned; it is changed, and returned again.
            labels: `[B, T]`, the tokens again, -100 where one is not to be counted; nor is one
                that is padding or has padding directly before it.
            use_cache: return `past_key_values`. Then rows with different numbers of tokens run one
                after the other; without, padding behind the tokens runs along.
            logits_to_keep: scores for the last positions only; 0: for all.
            loss_options: for the loss of transformers; anything else is not looked at.
        """
        length = input_ids.shape[1]
        kept = logits_to_keep or length
        mask = torch.ones_like(input_ids, dtype=torch.bool)
        if attention_mask is not None:
            mask = attention_mask[:, -length:].bool()
            if mask.shape != input_ids.shape:
                raise ValueError(
                    f"attention_mask must be [B, T] or longer, got {list(attention_mask.shape)} "
                    f"for input_ids {list(input_ids.shape)}"
                )
        at = torch.zeros_like(mask)
        at[:, -kept:] = True
        cache: Any = past_key_values  # no `Cache` of transformers, but what generate uses of one
        balance_loss = 0.0
        if cache is None and use_cache:
            cache = FastWeightsCache()
        if cache is None:
            first = mask.int().argsort(dim=1, descending=True, stable=True)
            wanted = (mask & at).gather(1, first)
            scores, _, balance_loss = self.model(input_ids.gather(1, first), at=wanted)
        elif isinstance(cache, FastWeightsCache):
            scores = cache.run(self.model, input_ids, mask, at)
            cache.seen += length
        else:
            raise ValueError(
                f"past_key_values must be a FastWeightsCache, got {type(cache).__name__}"
            )
        logits = scores.new_zeros(len(input_ids), min(kept, length), scores.shape[-1])
        logits = logits.masked_scatter(mask[:, -kept:, None], scores)
        loss = None
        if labels is not None:
            predicted = mask & F.pad(mask, (1, -1), value=True)
            labels = labels.masked_fill(~predicted, -100)
            loss = balance_loss + self.loss_function(
                logits, labels, self.config.vocab_size, **loss_options
            )
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.embedding = value

    def get_output_embeddings(self) -> nn.Module | None:
        """None where they are the input's."""
        return self.model.output

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.model.output = new_embeddings

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """As in transformers, new tokens drawn around the mean of the old ones.

        Raises ValueError for a one-hot embedding and an adaptive softmax, where a token's number
        says more than its row, and for any other way to draw.
        """
        if self.config.embedding == "one_hot" or self.config.adaptive_cutoffs is not None:
            what = "adaptive_cutoffs" if self.config.adaptive_cutoffs else "embedding='one_hot'"
            raise ValueError(f"resize_token_embeddings: not with {what}")
        if not mean_resizing:
            raise ValueError("resize_token_embeddings: mean_resizing must be True, got False")
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of)

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """`generate` begins without a cache, and the first call makes one."""
        return False

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: they are drawn where the model is built. Called again by `from_pretrained`, for
        modules with weights that the file does not have."""
        if self._drawn:
            named = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            missing = [name for name, x in named if not getattr(x, "_is_hf_initialized", False)]
            if missing:
                raise ValueError(f"the file has no weights {', '.join(missing)} of {module}")


def from_run(
    run_folder: Path, checkpoint: CheckpointName = "best", device: Device = "auto"
) -> tuple[FastWeightsForCausalLM, Tokenizer]:
    """The model of a text run, in evaluation mode, and its tokenizer. Raises as
    `evaluate.load_text_run`."""
    run, tokenizer = load_text_run(run_folder, checkpoint, device)
    settings = run.config.model
    assert isinstance(settings, SequenceModelConfig)
    values = {name: getattr(settings, name) for name in FIELDS}
    config = FastWeightsConfig(
        tokenizer.vocab_size,
        **values,
        bos_token_id=tokenizer.separator,
        eos_token_id=tokenizer.separator,
    )
    model = FastWeightsForCausalLM(config, torch.Generator())
    model.model = run.model
    return model.eval(), tokenizer


def tokenizer_for(tokenizer: Tokenizer) -> transformers.PreTrainedTokenizerFast:
    """The same tokenizer for transformers. The separator begins, ends and pads a text.

    Raises ValueError for one that transformers does not have.
    """
    if isinstance(tokenizer, ByteTokenizer):
        made = _bytes_tokenizer(tokenizer.separator)
    elif isinstance(tokenizer, BytePairTokenizer):
        made = tokenizers.Tokenizer.from_buffer(tokenizer.to_bytes())
    else:
        raise ValueError(f"{type(tokenizer).__name__} has no counterpart in transformers")
    separator = made.id_to_token(tokenizer.separator)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=separator,
        eos_token=separator,
        pad_token=separator,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _bytes_tokenizer(separator: int) -> tokenizers.Tokenizer:
    """A byte-level BPE without merges: token i is byte i."""
    names = _byte_names()
    vocabulary = {names[byte]: byte for byte in range(256)}
    vocabulary[SEPARATOR_TEXT] = vocabulary.pop(names[separator])
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(SEPARATOR_TEXT, normalized=False)])
    return made


def _byte_names() -> list[str]:
    """The characters that byte-level tokenizers (Radford et al., 2019) write for bytes: those of
    Latin-1 where they can be seen, else the next one from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in seen]
    return [chr(byte if byte in seen else 0x100 + others.index(byte)) for byte in range(256)]


def _sequence_model(values: Mapping[str, Any]) -> SequenceModelConfig:
    try:
        return SequenceModelConfig(**values)
    except ValidationError as error:
        lines = validation_errors_one_line(error, SequenceModelConfig)
        raise ValueError("; ".join(lines)) from None


transformers.AutoConfig.register(FastWeightsConfig.model_type, FastWeightsConfig)
transformers.AutoModelForCausalLM.register(FastWeightsConfig, FastWeightsForCausalLM)
