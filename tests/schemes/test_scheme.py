"""The one-string form: every scheme has one, it reads back, and a wrong one says which part is wrong."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subbyte.errors import SchemeError, ShapeError
from subbyte.schemes import SCALE_DTYPES, TABLES, Int, Levels, Power, Scheme, Table, Vectors


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    element = Int(draw(st.integers(1, 8)))
    granularity = draw(st.sampled_from(["tensor", "channel", "group", "token"]))
    symmetric, static = draw(st.booleans()), draw(st.booleans()) and granularity == "tensor"
    float_zero = draw(st.booleans()) and not (symmetric or static or granularity == "token")
    levels = None
    if granularity in ("channel", "group") and draw(st.booleans()):
        scale, zero = draw(st.integers(1, 8)), draw(st.integers(1, 8)) if float_zero else None
        levels = Levels(scale if zero is None or draw(st.booleans()) else None, zero, draw(st.integers(1, 999)))
    return Scheme(
        element,
        granularity,
        draw(st.integers(1, 999_999_999)) if granularity == "group" else None,
        symmetric=symmetric,
        narrow=draw(st.booleans()) and element.bits > 1,
        static=static,
        float_zero=float_zero,
        scale_dtype=draw(st.sampled_from(SCALE_DTYPES)),
        levels=levels,
        by_input=granularity in ("channel", "group") and draw(st.booleans()),
    )


@st.composite
def vectors(draw: st.DrawFn) -> Scheme:
    counts, dims = st.integers(1, 16).map(lambda bits: 1 << bits), st.integers(1, 64)
    outliers = draw(st.integers(0, 99_999)) / 1000
    coded = outliers > 0 and draw(st.booleans())
    element = Vectors(
        draw(dims),
        draw(counts),
        draw(st.just(0) | counts),
        draw(st.integers(1, 9999)),
        outliers,
        draw(dims) if coded else 0,
        draw(counts) if coded else 0,
        norm=draw(st.booleans()),
    )
    return Scheme(element, "tensor", scale_dtype=draw(st.sampled_from(SCALE_DTYPES)))


@st.composite
def tables(draw: st.DrawFn) -> Scheme:
    powers = st.builds(Power, st.integers(2, 8), st.booleans())
    group = draw(st.integers(1, 999_999_999))
    granularity = draw(st.sampled_from(["tensor", "channel", "group"]))
    return Scheme(
        draw(powers | st.sampled_from(sorted(TABLES)).map(Table)),
        granularity,
        group if granularity == "group" else None,
        scale_dtype=draw(st.sampled_from(SCALE_DTYPES)),
    )


@given(schemes() | vectors() | tables())
def test_reads_back_what_it_writes(scheme: Scheme) -> None:
    assert Scheme.parse(str(scheme)) == scheme
    assert hash(Scheme.parse(str(scheme))) == hash(scheme)


@given(st.text(alphabet="int1234567890/gasymnarowtichelkfbzpuv._ ", max_size=24))
def test_whatever_parses_has_one_spelling(text: str) -> None:
    try:
        scheme = Scheme.parse(text)
    except SchemeError:
        return
    assert str(scheme) == text


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("int4/g128", Scheme(Int(4), "group", 128)),
        ("int4/g128/asym", Scheme(Int(4), "group", 128, symmetric=False)),
        ("int2/g16/asym/float_zero", Scheme(Int(2), "group", 16, symmetric=False, float_zero=True)),
        (
            "int3/g16/asym/float_zero/s3z4r16/f16",
            Scheme(Int(3), "group", 16, symmetric=False, float_zero=True, levels=Levels(3, 4, 16), scale_dtype="f16"),
        ),
        ("int4/channel/s8r32", Scheme(Int(4), "channel", levels=Levels(8, None, 32))),
        ("int8/channel", Scheme(Int(8), "channel")),
        ("power4/channel", Scheme(Power(4), "channel")),
        ("power3r/g64/f16", Scheme(Power(3, by_row=True), "group", 64, scale_dtype="f16")),
        ("nf4/g64", Scheme(Table("nf4"), "group", 64)),
        ("int4/g64/by_input/asym", Scheme(Int(4), "group", 64, symmetric=False, by_input=True)),
        ("int8/token", Scheme(Int(8), "token")),
        ("int8/tensor", Scheme(Int(8), "tensor")),
        ("int8/tensor/static", Scheme(Int(8), "tensor", static=True)),
        ("v6k4096/tensor", Scheme(Vectors(6, 4096), "tensor")),
        (
            "v12k4096r1024c4o1.5v4k8192n/tensor/f16",
            Scheme(Vectors(12, 4096, 1024, 4, 1.5, 4, 8192, norm=True), "tensor", scale_dtype="f16"),
        ),
        ("v8k256o1/tensor", Scheme(Vectors(8, 256, outliers=1.0), "tensor")),
        (
            "int3/channel/asym/narrow/bf16",
            Scheme(Int(3), "channel", symmetric=False, narrow=True, scale_dtype="bf16"),
        ),
    ],
)
def test_means(text: str, scheme: Scheme) -> None:
    assert Scheme.parse(text) == scheme
    assert str(scheme) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' as part 1"),
        ("int9/channel", "'int9' as part 1"),
        ("fp4/g128", "'fp4' as part 1"),
        ("int4", "int4/g128"),
        ("int4/", "'' as part 2"),
        ("int4/group", "'group' as part 2"),
        ("int4/g0", "g<size>"),
        ("int4/g-1", "'g-1' as part 2"),
        ("int4/chanel", "did you mean 'channel'"),
        ("int4/g128/sym", "did you mean 'asym'"),
        ("int4/g128/auto", "'auto' as part 3"),
        ("int4/g128/bf16/asym", "out of order"),
        ("int4/g128/asym/asym", "twice"),
        ("int4/g128 ", "'g128 ' as part 2"),
        ("INT4/g128", "'INT4' as part 1"),
        ("int8/token/static", "int8/tensor/static"),
        ("int4/g16/s9r16", "'s9r16' as part 3"),
        ("int4/g16/r16", "'r16' as part 3"),
        ("int4/g16/s3r0", "'s3r0' as part 3"),
        ("int4/g16/f16/s3r16", "out of order"),
        ("int4/g16/s3r16/s3r16", "twice"),
        ("int4/g16/asym/z3r16", "zero points that are floats"),
        ("int4/tensor/s3r16", "a scale for each row"),
        ("int8/token/s3r16", "a scale for each row"),
        ("int4/g64/asym/by_input", "out of order"),
        ("int4/tensor/by_input", "channels or groups"),
        ("int8/token/by_input", "channels or groups"),
        ("int1/channel/narrow", "2 bits or more"),
        ("power1/channel", "'power1' as part 1"),
        ("nf5/g64", "did you mean 'nf4'"),
        ("power4/token", "tensor | channel | group"),
        ("power4/channel/asym", "with flags"),
        ("nf4/g64/by_input", "with flags"),
        ("v6/tensor", "vectors such as"),
        ("v6k4095/tensor", "65536 codewords"),
        ("v6k1/tensor", "65536 codewords"),
        ("v65k4/tensor", "1 to 64"),
        ("v6k4r131072/tensor", "vectors such as"),
        ("v6k4r3/tensor", "65536 codewords"),
        ("v6k4c1/tensor", "its one spelling, v6k4"),
        ("v6k4o0/tensor", "its one spelling, v6k4"),
        ("v6k4o1.50/tensor", "its one spelling, v6k4o1.5"),
        ("v6k4v2k4/tensor", "vectors such as"),
        ("v6k4/channel", "write v6k4/tensor"),
        ("v6k4/tensor/asym", "write v6k4/tensor"),
    ],
)
def test_a_wrong_string_says_which_part(text: str, says: str) -> None:
    with pytest.raises(SchemeError) as error:
        Scheme.parse(text)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"granularity": "group"},
        {"granularity": "group", "group_size": 0},
        {"granularity": "group", "group_size": True},
        {"granularity": "channel", "group_size": 128},
        {"granularity": "row"},
        {"granularity": "channel", "static": True},
        {"granularity": "channel", "scale_dtype": "f64"},
    ],
)
def test_a_combination_without_meaning_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(SchemeError):
        Scheme(Int(4), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [(None, None, 16), (0, 3, 16), (3, 9, 16), (True, 3, 16), (3, 3, 0), (3, 3, True), (3, 3, 1.5)]
)
def test_levels_without_meaning_are_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(SchemeError, match="levels"):
        Levels(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [0, 9, -1, True, 4.0, "4"])
def test_an_integer_has_one_to_eight_bits(bits: object) -> None:
    with pytest.raises(SchemeError):
        Int(bits)  # type: ignore[arg-type]


def test_groups_of_a_row() -> None:
    assert Scheme.parse("int4/g64").group(768) == 64
    assert Scheme.parse("int4/g64").groups(768) == 12
    assert Scheme.parse("int4/channel").groups(768) == 1
    assert Scheme.parse("int4/g64").groups(0) == 0
    with pytest.raises(ShapeError, match="a divisor of 96; use g32 or g16"):
        Scheme.parse("int4/g128").group(96)
    with pytest.raises(ShapeError, match="use a channel scheme"):
        Scheme.parse("int4/g128").group(7)


def test_resolving_the_scale_dtype() -> None:
    assert str(Scheme.parse("int4/g128").resolve("f16")) == "int4/g128/f16"
    assert str(Scheme.parse("int4/g128/f32").resolve("f16")) == "int4/g128/f32"


def test_by_input_groups_are_those_of_columns() -> None:
    scheme = Scheme.parse("int4/g64/by_input/asym")
    assert scheme.along((128, 96)) == 128
    assert scheme.parameters((128, 96)) == (2, 96)
    assert Scheme.parse("int4/channel/by_input").parameters((128, 96)) == (1, 96)
    with pytest.raises(SchemeError, match="groups of input columns"):
        scheme.refuse_by_input("bilevel")


def test_columns_of_vectors() -> None:
    assert Vectors(6, 4096).columns(4096) == (0, 4096)
    assert Vectors(6, 4096, outliers=1.0).columns(4096) == (41, 4055)
    assert Vectors(6, 4096, groups=4, outliers=1.0).columns(4096) == (44, 1013)
    assert Vectors(6, 4096, groups=4).columns(4098) == (2, 1024)
    with pytest.raises(ShapeError, match="9 groups"):
        Vectors(6, 4096, groups=9).columns(8)


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 4),
        (True, 4),
        (4, 3),
        (4, 4, 1),
        (4, 4, 0, 0),
        (4, 4, 0, 1, 100),
        (4, 4, 0, 1, 0.0001),
        (4, 4, 0, 1, 0, 4, 4),
        (4, 4, 0, 1, 1, 4),
        (4, 4, 0, 1, 1, 0, 4),
    ],
)
def test_vectors_without_meaning_are_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(SchemeError, match="vectors"):
        Vectors(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1, 9, True, 4.0])
def test_a_power_has_two_to_eight_bits(bits: object) -> None:
    with pytest.raises(SchemeError):
        Power(bits)  # type: ignore[arg-type]


def test_a_table_has_a_name() -> None:
    with pytest.raises(SchemeError, match="nf4"):
        Table("nf5")


@pytest.mark.parametrize("name", TABLES)
def test_the_values_of_a_table_rise_and_boundaries_lie_halfway(name: str) -> None:
    values, bounds = Table(name).values(), Table(name).bounds()
    assert values.shape == (1, 1 << Table(name).bits)
    assert (np.diff(values) > 0).all()
    np.testing.assert_allclose(bounds, (values[:, 1:] + values[:, :-1]) / 2, rtol=1e-6)


def test_nf4_is_what_the_normal_distribution_says() -> None:
    """QLoRA, appendix E: eight quantiles above 0, seven below, both from the same outermost probability, and 0."""
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    above = [NormalDist().inv_cdf(p) for p in np.linspace(outermost, 0.5, 9)[:-1]]
    below = [-NormalDist().inv_cdf(p) for p in np.linspace(outermost, 0.5, 8)[:-1]]
    expected = np.sort([*above, *below, 0]) / max(above)
    np.testing.assert_allclose(Table("nf4").values()[0], expected, atol=2e-7)
