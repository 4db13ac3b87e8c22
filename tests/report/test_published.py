from fastweights.report.names import LANGUAGE_NAMES, MODEL_NAMES
from fastweights.report.published import CLAIMS, EVIDENCE, THEORY, claim
from fastweights.report.windows import find_windows
from fastweights.tasks.formal.menu import LANGUAGES


def test_every_cell_of_the_grid_has_a_claim_with_known_sources() -> None:
    assert set(CLAIMS) == set(MODEL_NAMES)
    assert set(LANGUAGE_NAMES) == set(LANGUAGES)
    for model, cells in CLAIMS.items():
        assert set(cells) == set(LANGUAGE_NAMES), model
        for known in cells.values():
            assert set(known.reasons) <= set(THEORY)
            assert bool(known.reasons) == (known.expectation != "open")
            has_claim = known.bin0 is not None or known.statement is not None
            assert (known.source in EVIDENCE) == has_claim


def test_the_recovered_numbers() -> None:
    transformer = claim("parity", "transformer")
    assert transformer is not None
    assert (transformer.bin0, transformer.bin1, transformer.source) == (0.464, 0.0, "S")
    numbers = {
        (language, model)
        for model, cells in CLAIMS.items()
        for language, known in cells.items()
        if known.bin0 is not None
    }
    suite = ("parity", "aa_star", "abab_star", "counter_2", "counter_3", "shuffle_2")
    perfect = {(language, model) for language in suite for model in ("lstm", "srwm")}
    assert numbers == perfect | {("parity", "transformer")}
    assert claim("parity", "own_model") is None


def test_windows_come_from_the_configuration_then_from_the_language() -> None:
    own = {"task": {"kind": "regex", "train_window": [1, 40], "test_window": [41, 90]}}
    assert find_windows("regex (ab)*", own) == ((1, 40), (1, 40), (41, 90))
    assert find_windows("counter_2", {}) == ((2, 100), (2, 100), (102, 200))
    assert find_windows("mine", {}) is None
    published = {"task": {"kind": "formal_language", "variant": "published"}}
    assert find_windows("reset_dyck_1", {}) == ((2, 50), (2, 50), (51, 100))
    assert find_windows("reset_dyck_1", published) == ((2, 101), (2, 101), (51, 201))
    assert find_windows("reset_dyck_1", {"protocol": "published"}) == find_windows(
        "reset_dyck_1", published
    )
