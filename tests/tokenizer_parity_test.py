"""Our encoder against Hugging Face `tokenizers`, id for id, in all variants.

Texts: over 10,000 real strings (the interpreter's own sources, licences, documentation), strings in every script, every
assigned code point in several contexts, and random mixtures that hit the corners of the patterns. Needs no network:
where no tokenizer ships, a small one is trained here.

    .venv/bin/python -m pytest tests/tokenizer_parity_test.py        TESSERA_BIN=... names another binary
"""

import functools
import json
import pathlib
import random
import subprocess
import sysconfig
import unicodedata

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from programs import ROOT, TESSERA as BINARY


TESSERA = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + TESSERA
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# SentencePiece's kind in its two forms: spaces written by a normalizer, or by a Metaspace.
LLAMA2 = ["llama2", "llama2-metaspace"]
VARIANTS = ["tessera", "gpt2", "smollm2", "llama3", "qwen", *LLAMA2]
SPACE = "\u2581"
BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]

SPECIAL = ["<|bos|>", "<|im_start|>", "<|im_end|>"]
ADDED = ["<tool_call>", "</tool_call>", "<tool", AddedToken("résumé", normalized=True)]
LLAMA2_ADDED = [AddedToken(text, normalized=False) for text in ("<tool_call>", "</tool_call>", "<tool", "résumé")]
# What SmolLM2's own file lacks: `tokenizers` drops these bytes from the text.
SMOLLM2_LACKS = [0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)]
# Numbers only since Unicode 17, which the Digits step of a recent `tokenizers` knows and its patterns don't.
UNICODE_17_NUMBERS = {*range(0x11DE0, 0x11DEA), *range(0x16FF4, 0x16FF7)}


def byte_alphabet():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(others)}}


@functools.cache
def real_strings():
    """Pieces of one to eight lines of files that any machine with Python has: code and prose."""
    rng = random.Random(1)
    stdlib = pathlib.Path(sysconfig.get_paths()["stdlib"])
    prose = [file for file in sorted(pathlib.Path("/usr/share/common-licenses").glob("*")) if file.is_file()]
    prose += sorted(pathlib.Path("/usr/share/perl").glob("**/*.pod"))[:30] + sorted(ROOT.glob("**/*.md"))[:30]
    files = prose + sorted(stdlib.glob("*.py")) + sorted(stdlib.glob("*/*.py"))
    strings = []
    for file in files:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        start = 0
        while start < len(lines) and len(strings) < 11000:
            count = rng.choice([1, 1, 2, 3, 4, 8])
            strings.append("".join(lines[start : start + count]))
            start += count
    return strings


@functools.cache
def words_of_scripts():
    """Invented words of every script that unicodedata names, joined by spaces and punctuation."""
    rng = random.Random(2)
    scripts = {}
    for code_point in range(0x80, 0x20000):
        if unicodedata.category(chr(code_point))[0] in "LMN":
            name = unicodedata.name(chr(code_point), "")
            scripts.setdefault(name.split(" ")[0], []).append(chr(code_point))
    strings = []
    for characters in scripts.values():
        for _ in range(20):
            words = ["".join(rng.choices(characters, k=rng.randint(1, 8))) for _ in range(rng.randint(1, 12))]
            ends = rng.choices([" ", " ", ", ", ". ", "\n", "\u3000", "-", "'s "], k=len(words))
            strings.append("".join(word + end for word, end in zip(words, ends)))
    return strings


@functools.cache
def character_contexts():
    """Every assigned code point alone, doubled, between letters, digits and line ends, and after spaces; six a text."""
    characters, contexts = [], []
    for code_point in range(0x110000):
        category = unicodedata.category(chr(code_point))
        if category == "Cs" or code_point in UNICODE_17_NUMBERS:
            continue
        # All of a class behave alike where nothing is assigned (or only privately): a sample is enough.
        if category in ("Cn", "Co") and code_point % 101:
            continue
        c = chr(code_point)
        characters.append(c)
        many_alike = unicodedata.name(c, "").startswith(("CJK UNIFIED", "HANGUL SYLLABLE"))
        contexts.append(f"a{c}{c}  {c}1" if many_alike else f"{c}{c} {c}a{c}1  {c}\n'{c}")
    decomposed = [unicodedata.normalize("NFD", c) for c in characters if unicodedata.decomposition(c)]
    joined = ["x".join(parts[i : i + 6]) for parts in (contexts, decomposed) for i in range(0, len(parts), 6)]
    return characters[::6] + joined, len(characters)


@functools.cache
def corner_mixtures():
    """Random strings of the parts that the patterns tell apart."""
    rng = random.Random(3)
    # fmt: off
    parts = [
        " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u2028", "\x85", "\v",
        "'", "'s", "'S", "'\u017f", "'ll", "'LL", "'Re", "'ve", "'d", "'t", "'M", "a", "Zoo", "é", "e\u0301", "ß",
        "가", "\u1100\u1161", "中文", "\u0301", "\u0323\u0307", "\u212b", "1", "23", "4567", "²", "Ⅷ", "٣",
        "!", "...", "—", "_", "😀", "👩\u200d💻", "\0", "\ufeff", "<|bos|>", "<|im_start|>", "<|im_end|>", "<|im_",
        "<tool_call>", "</tool_call>", "<tool", "<tool_", "résumé", "re\u0301sume\u0301",
    ]
    # fmt: on
    long_ones = ["", "a" * 3000, " " * 3000, "ab" * 2000]
    return ["".join(rng.choices(parts, k=rng.randint(1, 12))) for _ in range(12000)] + long_ones


def lacking_bytes(variant):
    return SMOLLM2_LACKS if variant == "smollm2" else []


def pre_tokenizer_of(variant):
    byte_level = functools.partial(pre_tokenizers.ByteLevel, add_prefix_space=False)
    if variant == "gpt2":
        return byte_level(use_regex=True)
    if variant == "smollm2":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=True)])
    pattern = {"tessera": TESSERA, "llama3": LLAMA3, "qwen": QWEN}[variant]
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, byte_level(use_regex=False)])


def complete(tokenizer, variant):
    if variant in LLAMA2:
        if variant == "llama2":
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)
        steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        return tokenizer
    tokenizer.pre_tokenizer = pre_tokenizer_of(variant)
    tokenizer.decoder = decoders.ByteLevel()
    if variant == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def llama2_of(variant, tokens, merges):
    vocab = {token: i for i, token in enumerate(["<unk>", *BYTE_TOKENS, *tokens])}
    tokenizer = complete(Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)), variant)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ["<unk>", *SPECIAL]])
    tokenizer.add_tokens(LLAMA2_ADDED)
    return tokenizer.to_str()


def trained_llama2(variant):
    """Trained on words with the space before them; characters that few texts have get no token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE)
    trainer = trainers.BpeTrainer(vocab_size=1500, limit_alphabet=400, initial_alphabet=[SPACE], show_progress=False)
    tokenizer.train_from_iterator(real_strings()[::9] + words_of_scripts()[::9], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return llama2_of(variant, model["vocab"], [tuple(merge) for merge in model["merges"]])


def trained(variant):
    """A small tokenizer of the usual kind, as JSON."""
    if variant in LLAMA2:
        return trained_llama2(variant)
    lacks = set(lacking_bytes(variant))
    tokenizer = complete(Tokenizer(models.BPE()), variant)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(SPECIAL) + 900,
        special_tokens=SPECIAL,
        initial_alphabet=[character for byte, character in byte_alphabet().items() if byte not in lacks],
        show_progress=False,
    )
    corpus = [text for text in real_strings()[::9] + words_of_scripts()[::9] if not lacks & set(text.encode())]
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens(ADDED)
    content = json.loads(tokenizer.to_str())
    merges = content["model"]["merges"]
    if variant == "gpt2":  # the older form of the file
        content["model"]["merges"] = [" ".join(merge) for merge in merges]
        del content["model"]["type"]
    if variant == "llama3":  # tokens that no merge reaches
        content["model"]["ignore_merges"] = True
        content["model"]["merges"] = [merge for merge in merges if len("".join(merge)) <= 4]
    return json.dumps(content)


def all_pairs(variant):
    """Any two bytes merge, in a random order: a piece that ends a byte too early or too late gives other tokens."""
    if variant in LLAMA2:  # any two characters, but for a space behind another one
        alphabet = [SPACE, *map(chr, range(0x21, 0x180)), "中", "文", "가", "😀"]
        merges = [(a, b) for a in alphabet for b in alphabet if a == SPACE or b != SPACE]
        random.Random(variant).shuffle(merges)
        return llama2_of(variant, alphabet + ["".join(merge) for merge in merges], merges)
    lacks = lacking_bytes(variant)
    alphabet = [character for byte, character in byte_alphabet().items() if byte not in lacks]
    merges = [(a, b) for a in alphabet for b in alphabet]
    random.Random(variant).shuffle(merges)
    vocab = {token: i for i, token in enumerate(alphabet + ["".join(merge) for merge in merges])}
    tokenizer = complete(Tokenizer(models.BPE(vocab, merges)), variant)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(ADDED)
    return tokenizer.to_str()


def pair_of(json_text, folder):
    """(path of tokenizer.json, the reference)"""
    path = folder / "tokenizer.json"
    path.write_text(json_text, encoding="utf-8")
    return path, Tokenizer.from_file(str(path))


@pytest.fixture(scope="module", params=VARIANTS)
def tokenizer(request, tmp_path_factory):
    shipped = ROOT / "data/tokenizers/tessera-4096.json"
    if request.param == "tessera" and shipped.exists():
        return shipped, Tokenizer.from_file(str(shipped))
    return pair_of(trained(request.param), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module", params=VARIANTS)
def sharp_tokenizer(request, tmp_path_factory):
    return pair_of(all_pairs(request.param), tmp_path_factory.mktemp("all_pairs"))


def run_ours(path, lines, *flags):
    command = [BINARY, "tokenize", str(path), *flags]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    result = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    lines_out = result.stdout.decode().split("\n")[:-1]
    assert len(lines_out) == len(lines)
    return lines_out


def assert_same_ids(tokenizer, texts, parse_special=False):
    path, reference = tokenizer
    ours = run_ours(path, texts, *(["--special"] if parse_special else []))
    reference.encode_special_tokens = not parse_special
    different = []
    for start in range(0, len(texts), 10000):
        batch = texts[start : start + 10000]
        for i, encoding in enumerate(reference.encode_batch_fast(batch, add_special_tokens=False)):
            # Both sides are compared as text: parsing millions of ids would take most of the test's time.
            if str(encoding.ids).replace(" ", "") != ours[start + i]:
                different.append((batch[i], encoding.ids, ours[start + i]))
    assert not different, f"{len(different)} of {len(texts)} differ; (text, theirs, ours): {different[:5]!r}"


def comparable(reference, texts):
    """`tokenizers` normalises by an older Unicode, which lacks a few rare marks. There we go with Python, not with it."""
    if not isinstance(reference.normalizer, normalizers.NFC):
        return texts
    normalize = reference.normalizer.normalize_str
    same = [text for text in texts if normalize(text) == unicodedata.normalize("NFC", text)]
    assert len(same) > 0.99 * len(texts)
    return same


def test_real_strings(tokenizer):
    assert len(real_strings()) >= 10000
    assert_same_ids(tokenizer, real_strings())


def test_every_script(sharp_tokenizer):
    texts = comparable(sharp_tokenizer[1], words_of_scripts())
    assert len(texts) >= 2000
    assert_same_ids(sharp_tokenizer, texts)


def test_every_code_point(sharp_tokenizer):
    texts, num_characters = character_contexts()
    assert num_characters >= 140000
    assert_same_ids(sharp_tokenizer, comparable(sharp_tokenizer[1], texts))


def test_corner_mixtures(tokenizer):
    assert_same_ids(tokenizer, corner_mixtures(), parse_special=True)


@pytest.mark.parametrize("parse_special", [False, True])
def test_corner_mixtures_sharply(sharp_tokenizer, parse_special):
    assert_same_ids(sharp_tokenizer, corner_mixtures(), parse_special)


def test_decode(tokenizer):
    path, reference = tokenizer
    texts = real_strings()[:2000] + words_of_scripts()[:500] + corner_mixtures()[:2000]
    reference.encode_special_tokens = False
    ids = [encoding.ids for encoding in reference.encode_batch_fast(texts, add_special_tokens=False)]
    ours = [json.loads(line) for line in run_ours(path, ids, "--decode", "--special")]
    # `tokenizers` itself decodes an added token that isn't ASCII as if its text were in the byte alphabet.
    ascii_only = [i for i in range(len(texts)) if reference.token_to_id("résumé") not in ids[i]]
    assert len(ascii_only) > 4000
    for skip, flags in [(False, ["--special"]), (True, [])]:
        ours = [json.loads(line) for line in run_ours(path, ids, "--decode", *flags)]
        theirs = reference.decode_batch([ids[i] for i in ascii_only], skip_special_tokens=skip)
        assert [ours[i] for i in ascii_only] == theirs
