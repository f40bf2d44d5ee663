"""Hostile YAML and paths are refused in one line, soon, and before they take memory."""

import pytest

from detector.config.file import load_config
from detector.config.schema import Config
from detector.data.descriptor import load_descriptor
from detector.models.limits import check_size

PAIRS = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f"), ("f", "g"), ("g", "h"), ("h", "i"), ("i", "j")]
ALIASES = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in PAIRS)
MERGES = "a: &a {k: 1}\n" + "".join(f"{b}: &{b} {{<<: [*{a}, *{a}, *{a}, *{a}]}}\n" for a, b in PAIRS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "more than 300000 values, aliases"),
        (MERGES, "more than 300000 values, aliases"),
        ("base: &a [*a]\n", "an alias inside of what it stands for"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 deep"),
        ("[" * 1000, "too deep"),
        ("a: !!python/object/apply:os.system [exit]\n", "could not determine a constructor"),
        ("a: !!bool x\n", "is not of the type that its tag"),
        ("a: !!timestamp x\n", "is not of the type that its tag"),
        ("a: 0x" + "f" * 5000, "a number of 5002 characters"),
        ("a: 1" + ":11" * 9000, "a number of 27001 characters"),
        ("? [a, b]\n: c\n", "a key is a list or a mapping"),
        ("1: 2\n", "key 1 is not text"),
        ("a: 1\na: 2\n", "key `a` stands twice"),
        ("#" * (1 << 20), "larger than 512 kB"),
        ("base: /dev/zero\n", "dev/zero: larger than 512 kB"),
        ('base: "a\\0b"\n', "cannot be read as text"),
        ('base: "\\ud800"\n', "\\ud800: cannot be read as text"),
        ('"\\e[31m\\n": 1\ndata: {dataset: x}\n', "unknown key `\\x1b[31m `"),
        ("data: {dataset: x}\n" + "".join(f"k{i}: 1\n" for i in range(500)), "unknown key `k0`"),
        ("data: {dataset: x}\nseed: 1" + "0" * 90, "seed"),
    ],
)
def test_yaml(tmp_path, refusal, text, said):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert said in refusal(lambda: load_config(path))
    if "unknown key" not in said and said != "seed" and "base" not in text:
        assert said in refusal(lambda: load_descriptor(path))


@pytest.mark.parametrize("name", ["a\\0", "\\ud800", "x" * 10_000])
def test_paths_that_no_file_can_have(tmp_path, refusal, name):
    (tmp_path / "d.yaml").write_text(f'train: {{images: ".", annotations: "{name}"}}\n')
    assert "train: `annotations:` cannot be a path, got '" in refusal(lambda: load_descriptor(tmp_path / "d.yaml"))


def test_a_text_that_looks_like_a_long_number_takes_no_time(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {dataset: x}\noutput_dir: " + "1" * 100_000 + "x\n")
    assert len(load_config(tmp_path / "c.yaml").output_dir) == 100_001


@pytest.mark.parametrize(
    "model",
    [
        {"head": {"depth": 64, "width": 8192}},
        {"neck": {"channels": 8192}},
        {"anchors": {"scales": 32, "ratios": [1.0] * 32}, "head": {"width": 8192}},
        {"backbone": {"name": "hf-hub:a/b"}},
    ],
)
def test_a_model_larger_than_any_machine_is_refused_before_it_is_built(refusal, model):
    config = Config.model_validate({"data": {"dataset": "d.yaml"}, "model": model})
    assert "model." in refusal(lambda: check_size(config, num_classes=2))
