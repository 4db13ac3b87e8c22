"""What is published, or follows from theory, for each language and model.

The tables of Irie, Csordás, Schmidhuber (EMNLP 2023, arXiv 2310.16076) are not available to us;
what is here comes from the sources in `EVIDENCE`, and each number's letter says from which.
"""

from typing import Literal, NamedTuple

Expectation = Literal["solves", "fails", "approximate", "open"]

EVIDENCE: dict[str, str] = {
    "A": "abstract of Irie et al. (2023), arXiv 2310.16076: no number is given there",
    "S": "third-party notes on Nested Learning (arXiv 2512.24695), Table 5, which follows the "
    "set-up of Irie et al. (2023); whether its rows are copied from there or run again is "
    "not known",
    "P": "Grazzi et al. (2025), arXiv 2411.12537, full text: another set-up (trained on lengths "
    "3-40, tested on 40-256; scaled accuracy of the last position, 1 is perfect, 0 is chance)",
}

EXPECTATIONS: dict[Expectation, str] = {
    "solves": "there are weights with Bin 1 at 100 %; training may still miss them",
    "fails": "there are none, under the condition that the reason names",
    "approximate": "the state is bounded, so long counts are only approximate",
    "open": "no published or derived claim known to us",
}

THEORY: dict[str, str] = {
    "T2": "one attention layer without positions (softmax or linear) sees a prefix as a bag of "
    "symbols and its last symbol, so the order is lost",
    "T3": "on one repeated symbol a softmax Transformer without positions gives the same output at "
    "every position: 0 by construction",
    "T4": "on a repeated symbol or word, what attention without positions puts out (softmax, or "
    "linear once normalised) converges, so late positions cannot be told apart",
    "T5": "with write strength in (0, 1) all eigenvalues of the delta rule's transition are >= 0, "
    "so nothing alternates (Grazzi et al. 2025, Theorem 1)",
    "T7": "the additive memory of the linear Transformer counts exactly up to 2^24 in float32; "
    "bounded states count approximately",
    "T8": "feeding back the output or the weights makes a non-linear recurrence, able to alternate",
    "T9": "write strength 2 with a key of norm 1 has eigenvalue -1 and toggles exactly; below 2 "
    "the amplitude decays, which sets a longest length",
    "T11": "the influence of one symbol on softmax attention falls as 1/n (Hahn 2020)",
    "T12": "an LSTM runs finite automata and counts; element-wise relatives are weaker (Merrill et "
    "al. 2020)",
    "E": "an element-wise recurrence that is non-linear in its own cell can flip the cell's sign "
    "(derived)",
}


class Claim(NamedTuple):
    """One cell. `bin0`, `bin1`: published sequence accuracy, 0 to 1; `source`: a key of EVIDENCE;
    `reasons`: keys of THEORY."""

    expectation: Expectation
    reasons: tuple[str, ...] = ()
    bin0: float | None = None
    bin1: float | None = None
    statement: str | None = None
    source: str | None = None


_SUITE = ("parity", "aa_star", "abab_star", "counter_2", "counter_3", "shuffle_2")
_PERIODIC = ("parity", "aa_star", "abab_star")
_COUNTING = ("counter_2", "counter_3", "shuffle_2", "dyck_1")
_RESET = "reset_dyck_1"


def _all(languages: tuple[str, ...], claim: Claim) -> dict[str, Claim]:
    return dict.fromkeys(languages, claim)


def _with_numbers(claims: dict[str, Claim], numbers: dict[str, Claim]) -> dict[str, Claim]:
    """`claims` with the published part of `numbers` laid over the expectations."""
    return {
        language: claim._replace(
            bin0=numbers[language].bin0,
            bin1=numbers[language].bin1,
            statement=numbers[language].statement,
            source=numbers[language].source,
        )
        if language in numbers
        else claim
        for language, claim in claims.items()
    }


_PERFECT = _all(_SUITE, Claim("open", bin0=1.0, bin1=1.0, source="S"))
_MOSTLY_ZERO = _all(_PERIODIC, Claim("open", statement="Bin 1 mostly 0", source="S"))
_OVERCOMES = {"parity": Claim("open", statement="generalises", source="A")}

CLAIMS: dict[str, dict[str, Claim]] = {
    "lstm": _with_numbers(
        _all((*_PERIODIC, *_COUNTING, _RESET), Claim("solves", ("T12",))), _PERFECT
    ),
    "e_lstm": {
        **_all(_PERIODIC, Claim("solves", ("E",))),
        **_all(_COUNTING, Claim("approximate", ("T7", "T12"))),
        _RESET: Claim("approximate", ("T12",)),
    },
    "transformer": _with_numbers(
        {
            "parity": Claim("fails", ("T11",)),
            "aa_star": Claim("fails", ("T3",)),
            "abab_star": Claim("fails", ("T4",)),
            **_all(_COUNTING, Claim("open")),
            _RESET: Claim("fails", ("T2",)),
        },
        {"parity": Claim("open", bin0=0.464, bin1=0.0, source="S")},
    ),
    "linear_transformer": _with_numbers(
        {
            **_all(_PERIODIC, Claim("fails", ("T4",))),
            **_all(_COUNTING, Claim("solves", ("T7",))),
            _RESET: Claim("fails", ("T2",)),
        },
        _MOSTLY_ZERO,
    ),
    "delta_net": _with_numbers(
        {
            **_all(_PERIODIC, Claim("fails", ("T5",))),
            **_all((*_COUNTING, _RESET), Claim("approximate", ("T7",))),
        },
        {
            **_MOSTLY_ZERO,
            "parity": Claim("open", statement="Bin 1 mostly 0 [S]; scaled 0.017", source="P"),
        },
    ),
    "delta_net_0_2": _with_numbers(
        {
            **_all(_PERIODIC, Claim("solves", ("T9",))),
            **_all((*_COUNTING, _RESET), Claim("open")),
        },
        {"parity": Claim("open", statement="scaled 1.000", source="P")},
    ),
    "recurrent_delta_net": _with_numbers(
        {
            **_all(_PERIODIC, Claim("solves", ("T8",))),
            **_all((*_COUNTING, _RESET), Claim("approximate", ("T7",))),
        },
        _OVERCOMES,
    ),
    "srwm": _with_numbers(
        {
            **_all(_PERIODIC, Claim("solves", ("T8",))),
            **_all((*_COUNTING, _RESET), Claim("open")),
        },
        {
            **_PERFECT,
            "parity": Claim("open", bin0=1.0, bin1=1.0, statement="generalises [A]", source="S"),
        },
    ),
}


def claim(language: str, model: str) -> Claim | None:
    """What is known of a cell; None for a language or model outside the published suite."""
    return CLAIMS.get(model, {}).get(language)
