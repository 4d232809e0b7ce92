"""Tiny models and tokenizers for tests, made in memory from a seed, never downloaded.

Every model is in eval mode; two calls with the same arguments give the same weights.
"""

import string
from collections import Counter

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LINES = (
    "the old distillery stands by the river and the barrels sleep in the dark",
    "every year the angels take their share of what the barrels hold",
    "a small student learns from a large teacher what the teacher has learned",
    "the teacher is slow and the student is fast and both read the same lines",
    "rare words are masked more often than the words that everybody knows",
    "nothing here was copied and nothing here was lost but the angels' share",
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _words_and_letters(lines, vocab_size):
    """Return a vocabulary of the lines' letters and most frequent words.

    The library's own trainer breaks ties differently in each process, but ids must be the same.
    """
    words = Counter(" ".join(lines).lower().replace("'", " ' ").split())
    letters = sorted(set("".join(words)) | set(string.ascii_lowercase))
    frequent = sorted(words, key=lambda word: (-words[word], word))
    tokens = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *frequent]
    unique = list(dict.fromkeys(tokens))
    unique += [f"[unused{number}]" for number in range(vocab_size - len(unique))]
    return {token: number for number, token in enumerate(unique[:vocab_size])}


def wordpiece(lines=LINES, vocab_size=160):
    """Return a BERT tokenizer (lower case, [CLS] and [SEP]) made from a few lines."""
    vocabulary = _words_and_letters(lines, vocab_size)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    cls, sep = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **dict(zip(names, SPECIAL, strict=True)),
    )


def byte_bpe(lines=LINES, vocab_size=400, *, roberta=False):
    """Return a byte-level BPE tokenizer: GPT-2's, or RoBERTa's with <s> and </s> around a line."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if roberta else ["<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    if not roberta:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_max_length=64,
            bos_token=special[0],
            eos_token=special[0],
            pad_token=special[0],
        )
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>"))
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
    )


def _build(model_class, config, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()


def bert(layers=4, hidden=32, vocab_size=160, *, seed=0, model_class=None, **config):
    """Return a small BertForMaskedLM, or another `model_class`."""
    settings = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden,
        "vocab_size": vocab_size,
        "max_position_embeddings": 64,
    } | config
    return _build(
        model_class or transformers.BertForMaskedLM, transformers.BertConfig(**settings), seed
    )


def distilbert(layers=2, hidden=32, vocab_size=160, *, seed=0, model_class=None, **config):
    """Return a small DistilBertForMaskedLM, or another `model_class`."""
    settings = {
        "n_layers": layers,
        "dim": hidden,
        "n_heads": 2,
        "hidden_dim": 2 * hidden,
        "vocab_size": vocab_size,
        "max_position_embeddings": 64,
    } | config
    return _build(
        model_class or transformers.DistilBertForMaskedLM,
        transformers.DistilBertConfig(**settings),
        seed,
    )


def roberta(layers=4, hidden=32, vocab_size=400, *, seed=0, model_class=None, **config):
    """Return a small RobertaForMaskedLM, or another class; ids as in `byte_bpe(roberta=True)`."""
    settings = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden,
        "vocab_size": vocab_size,
        "max_position_embeddings": 66,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "type_vocab_size": 1,
    } | config
    return _build(
        model_class or transformers.RobertaForMaskedLM, transformers.RobertaConfig(**settings), seed
    )


def xlm_roberta(layers=4, hidden=32, vocab_size=400, *, seed=0, **config):
    """Return a small XLMRobertaForMaskedLM: a RoBERTa by another name."""
    return _build(
        transformers.XLMRobertaForMaskedLM,
        transformers.XLMRobertaConfig(
            **roberta(1, hidden, vocab_size).config.to_dict()
            | {"model_type": "xlm-roberta", "num_hidden_layers": layers}
            | config
        ),
        seed,
    )


def gpt2(layers=4, hidden=32, vocab_size=400, *, seed=0, model_class=None, **config):
    """Return a small GPT2LMHeadModel, or another `model_class`; ids as in `byte_bpe()`."""
    settings = {
        "n_layer": layers,
        "n_embd": hidden,
        "n_head": 2,
        "vocab_size": vocab_size,
        "n_positions": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
    } | config
    return _build(
        model_class or transformers.GPT2LMHeadModel, transformers.GPT2Config(**settings), seed
    )


def _rotary(layers, hidden, vocab_size, **config):
    """Return settings that all models with rotary positions have."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden,
        "vocab_size": vocab_size,
        "max_position_embeddings": 64,
    } | config


def modernbert(layers=4, hidden=32, vocab_size=160, *, seed=0, model_class=None, **config):
    """Return a small ModernBertForMaskedLM; every third layer sees more than 4 tokens away.

    Ids are as in `wordpiece()`.
    """
    ids = {"pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3}
    settings = _rotary(layers, hidden, vocab_size, local_attention=8, sep_token_id=3, **ids)
    return _build(
        model_class or transformers.ModernBertForMaskedLM,
        transformers.ModernBertConfig(**settings | config),
        seed,
    )


def nomic_bert(layers=4, hidden=32, vocab_size=160, *, seed=0, model_class=None, **config):
    """Return a small NomicBertForMaskedLM, or another class; ids as in `wordpiece()`."""
    return _build(
        model_class or transformers.NomicBertForMaskedLM,
        transformers.NomicBertConfig(**_rotary(layers, hidden, vocab_size) | config),
        seed,
    )


def eurobert(layers=4, hidden=32, vocab_size=400, *, seed=0, model_class=None, **config):
    """Return a small EuroBertForMaskedLM; ids as in `byte_bpe(roberta=True)`.

    Two heads share their keys and values.
    """
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "mask_token_id": 4}
    settings = _rotary(layers, hidden, vocab_size, num_key_value_heads=1, **ids)
    return _build(
        model_class or transformers.EuroBertForMaskedLM,
        transformers.EuroBertConfig(**settings | config),
        seed,
    )


def _decoder(name, layers, hidden, vocab_size, seed, model_class, config):
    """Return a small decoder with rotary positions; ids as in `byte_bpe()`.

    Two heads share their keys and values.
    """
    settings = _rotary(
        layers, hidden, vocab_size, num_key_value_heads=1, bos_token_id=0, eos_token_id=0
    )
    config_class = getattr(transformers, f"{name}TextConfig", None)
    config_class = config_class or getattr(transformers, f"{name}Config")
    model_class = model_class or getattr(transformers, f"{name}ForCausalLM")
    return _build(model_class, config_class(**settings | config), seed)


def llama(layers=4, hidden=32, vocab_size=400, *, seed=0, model_class=None, **config):
    """Return a small LlamaForCausalLM, whose decoder isn't tied, or another `model_class`."""
    return _decoder("Llama", layers, hidden, vocab_size, seed, model_class, config)


def qwen2(layers=4, hidden=32, vocab_size=400, *, seed=0, model_class=None, **config):
    """Return a small Qwen2ForCausalLM, whose later half sees 4 tokens, or another class."""
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": layers // 2}
    return _decoder("Qwen2", layers, hidden, vocab_size, seed, model_class, window | config)


def qwen3(layers=4, hidden=32, vocab_size=400, *, seed=0, model_class=None, **config):
    """Return a small Qwen3ForCausalLM of narrow heads and a tied decoder, or another class."""
    more = {"head_dim": 8, "tie_word_embeddings": True} | config
    return _decoder("Qwen3", layers, hidden, vocab_size, seed, model_class, more)


def gemma3(layers=4, hidden=32, vocab_size=400, *, seed=0, model_class=None, **config):
    """Return a small Gemma3ForCausalLM, or another class; every third layer sees over 4 tokens."""
    more = {
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 4,
        "sliding_window_pattern": 3,
    }
    return _decoder("Gemma3", layers, hidden, vocab_size, seed, model_class, more | config)


ARCHITECTURES = {
    "bert": bert,
    "distilbert": distilbert,
    "roberta": roberta,
    "xlm-roberta": xlm_roberta,
    "modernbert": modernbert,
    "nomic_bert": nomic_bert,
    "eurobert": eurobert,
    "gpt2": gpt2,
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gemma3_text": gemma3,
}
"""Every architecture that has students, with the maker of a small language model."""


def shaken(model):
    """Adds noise everywhere: new models are so near to uniform that mistakes would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def taught(model, batch, steps=80):
    """Fit a model to a batch with labels: an untrained one is sure of nothing, or of one thing."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def tokenizer_for(name, lines=LINES):
    """Return a tokenizer with the ids of an architecture's small model."""
    if name in ("roberta", "xlm-roberta", "eurobert"):
        return byte_bpe(lines, roberta=True)
    if name in ("gpt2", "llama", "qwen2", "qwen3", "gemma3_text"):
        return byte_bpe(lines)
    return wordpiece(lines)


def folder(path, model, tokenizer):
    """Save a model and its tokenizer in a folder that `from_pretrained` loads; return its path."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
