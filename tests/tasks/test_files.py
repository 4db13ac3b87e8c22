"""Reading and writing .src/.tgt pairs; every bad file ends in one line."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastweights.tasks.formal.files import read_folder, read_pairs, split_symbols, write_pairs
from fastweights.tasks.formal.language import Example
from fastweights.tasks.formal.menu import LANGUAGES
from fastweights.tasks.formal.splits import make_splits


def write(folder, **files):
    """write(folder, train_src="01\n") writes folder/train.src."""
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        data = content if isinstance(content, bytes) else content.encode()
        (folder / f"{stem}.{suffix}").write_bytes(data)


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_file_decides_for_itself(tmp_path):
    write(tmp_path, train_src="([)]\n()\n", train_tgt="10 11 01 00\n10 00\n")
    first, second = read_pairs(tmp_path / "train")
    assert first == Example(("(", "[", ")", "]"), ("10", "11", "01", "00"))
    assert second == Example(("(", ")"), ("10", "00"))


def test_one_separated_line_decides_for_all(tmp_path):
    write(tmp_path, train_src="aa bb\n  cc\t\n", train_tgt="10\n1\n")
    assert read_pairs(tmp_path / "train")[1] == Example(("cc",), ("1",))


def test_line_ends_marks_and_prefixes(tmp_path):
    write(tmp_path, train_src=b"\xef\xbb\xbf01\r\n1\x0b\r\n", train_tgt="10\n0")
    expected = [Example(("0", "1"), ("1", "0")), Example(("1",), ("0",))]
    for prefix in ("train", "train.src", "train.tgt"):
        assert read_pairs(tmp_path / prefix) == expected


@pytest.mark.parametrize(
    ("text", "symbols"),
    [("0110", "0110"), (" 0 1 ", "01"), ("ab cd", ("ab", "cd")), ("", ()), ("é1", "é1")],
)
def test_split_symbols(text, symbols):
    assert split_symbols(text) == tuple(symbols)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (None, "1\n", "{src}: no such file"),
        ("1\n", None, "{tgt}: no such file"),
        ("", "1\n", "{src}: the file is empty"),
        ("1\n", "", "{tgt}: the file is empty"),
        ("1\n\n1\n", "1\n1\n1\n", "{src}, line 2: the line is empty"),
        ("1\n1\n", "1\n \n", "{tgt}, line 2: the line is empty"),
        (b"1\n1\xff\n", "1\n1\n", "{src}, line 2: not UTF-8 (byte 2)"),
        ("1\n1\n1\n", "1\n1\n", "{src}, line 3: no such line in {tgt} (3 lines in .src, 2 in "),
        ("1\n", "1\n1\n", "{tgt}, line 2: no such line in {src} (1 lines in .src, 2 in .tgt)"),
        ("1\n11\n", "1\n111\n", "{tgt}, line 2: 3 labels for 2 symbols"),
        ("01\n0x\n", "11\n11\n", "{src}, line 2: unknown symbol 'x' at position 2 (known: 0 1)"),
        ("01\n01\n", "11\n12\n", "{tgt}, line 2: unknown label '2' at position 2 (known: 0 1)"),
    ],
)
def test_bad_files(tmp_path, source, target, message):
    if source is not None:
        write(tmp_path, bad_src=source)
    if target is not None:
        write(tmp_path, bad_tgt=target)
    expected = message.format(src=tmp_path / "bad.src", tgt=tmp_path / "bad.tgt")
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}") as caught:
        read_pairs(tmp_path / "bad", "01", "01")
    one_line(caught)


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "bad.src").mkdir()
    with pytest.raises(ValueError, match=r"bad\.src: Is a directory"):
        read_pairs(tmp_path / "bad")


@pytest.mark.parametrize("names", [("train", "bin0", "bin1"), ("train_50", "valid_50", "test_50")])
def test_folder(tmp_path, names):
    for name, line in zip(names, ("ba\n", "a\n", "bba\n"), strict=True):
        lines = "".join(f"ba{'a' * i}\n" for i in range(20)) if name == names[0] else line
        write(tmp_path, **{f"{name}_src": lines, f"{name}_tgt": lines.replace("b", "x")})
    data = read_folder(tmp_path, "strict", 0)
    assert data.symbols == ("b", "a") and data.labels == ("x", "a")
    assert tuple(map(len, data.splits)) == (18, 2, 1, 1)
    assert data.splits.bin1 == [Example(("b", "b", "a"), ("x", "x", "a"))]
    assert tuple(map(len, read_folder(tmp_path, "published", 0).splits)) == (20, 0, 1, 1)
    write(tmp_path, validation_src="a\n", validation_tgt="a\n")
    assert tuple(map(len, read_folder(tmp_path, "strict", 0).splits)) == (20, 1, 1, 1)


def test_the_validation_split_shares_no_string_with_train(tmp_path):
    lines = ["a", "a a", "a a a"] * 7
    write(tmp_path, train_src="\n".join(lines), train_tgt="\n".join(lines))
    splits = read_folder(tmp_path, "strict", 0).splits
    assert len(splits.train) == 14 and len(splits.validation) == 7
    assert not {e.inputs for e in splits.train} & {e.inputs for e in splits.validation}
    write(tmp_path, train_src="a\na\n", train_tgt="a\na\n")
    with pytest.raises(ValueError, match="one sequence cannot be split"):
        read_folder(tmp_path, "strict", 0)


def test_validation_split_follows_the_seed(tmp_path):
    lines = "".join("a" * length + "\n" for length in range(1, 31))
    write(tmp_path, train_src=lines, train_tgt=lines)
    first = read_folder(tmp_path, "strict", 0).splits
    assert first == read_folder(tmp_path, "strict", 0).splits
    assert first.validation != read_folder(tmp_path, "strict", 1).splits.validation
    lengths = sorted(len(e.inputs) for e in (*first.train, *first.validation))
    assert lengths == list(range(1, 31)) and len(first.validation) == 3


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="none: no such folder"):
        read_folder(tmp_path / "none", "strict", 0)
    with pytest.raises(ValueError, match=r"train\.src: no such file"):
        read_folder(tmp_path, "strict", 0)
    write(tmp_path, train_src="a\n", train_tgt="a\n")
    with pytest.raises(ValueError, match=r"train\.src: one sequence cannot be split"):
        read_folder(tmp_path, "strict", 0)
    write(tmp_path, validation_src="b\n", validation_tgt="a\n")
    with pytest.raises(ValueError, match=r"validation\.src, line 1: unknown symbol 'b'"):
        read_folder(tmp_path, "strict", 0)
    write(tmp_path, bin0_src="a\n", validation_src="a\n")
    with pytest.raises(ValueError, match=r"bin0\.tgt: no such file"):
        read_folder(tmp_path, "strict", 0)


@pytest.mark.parametrize("name", ["counter_3", "aa_star"])
def test_what_was_written_is_read(tmp_path, name):
    splits = make_splits(LANGUAGES[name], "strict", 0)
    for split, examples in splits.non_empty().items():
        write_pairs(examples, tmp_path / split)
    assert read_folder(tmp_path, "strict", 0).splits == splits
    assert len(list(tmp_path.iterdir())) == 8


SYMBOL = st.text(st.characters(exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=3)


@given(
    st.lists(
        st.lists(st.tuples(SYMBOL, SYMBOL), min_size=2, max_size=5).map(
            lambda pairs: Example(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_round_trip(tmp_path_factory, examples):
    prefix = tmp_path_factory.mktemp("pairs") / "any"
    write_pairs(examples, prefix)
    assert read_pairs(prefix) == examples


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        ([], "no sequences to write"),
        ([Example((), ())], "line 1: empty"),
        ([Example(("a b",), ("1",))], "symbol has whitespace"),
        ([Example(("ab",), ("1",))], "need a sequence of two"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, examples, reason):
    with pytest.raises(ValueError, match=reason):
        write_pairs(examples, tmp_path / "bad")
    assert not (tmp_path / "bad.src").exists()
