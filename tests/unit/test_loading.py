"""Files become specs, or all of their problems with file, line, path and a way out."""

# ruff: noqa: N815 (timings are named as in the standards)
from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from archsim.config import presets
from archsim.config.errors import Problem, SpecError, UserError
from archsim.config.loading import LoadedSpec, load_mapping, load_spec, read_key, resolve_preset, unsourced_numbers
from archsim.config.schema import Spec
from archsim.config.units import BitsPerSecond, ByteCount, BytesPerSecond, PositiveInt, TimeFs, TimingNsOrClocks
from archsim.config.yamltree import dump_yaml, parse_value, plain


class Policy(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class Timings(Spec):
    tRCD: TimingNsOrClocks
    tRAS: TimingNsOrClocks
    tRC: TimingNsOrClocks

    @model_validator(mode="after")
    def _row_cycle_covers_row_active(self) -> Timings:
        if self.tRAS.ns and self.tRC.ns and self.tRAS.ns > self.tRC.ns:
            raise ValueError("tRAS exceeds tRC")
        return self


class Dram(Spec):
    kind: Literal["dram"]
    stacks: PositiveInt
    pin_rate: BitsPerSecond
    timings: Timings
    policy: Policy = Policy.OPEN


class Flash(Spec):
    kind: Literal["flash"]
    planes: PositiveInt
    page: ByteCount


class Link(Spec):
    bandwidth: BytesPerSecond
    latency: TimeFs = 0
    lanes: Annotated[int, Field(gt=0)] = 1


Memory = Annotated[Dram | Flash, Field(discriminator="kind")]


class Machine(Spec):
    kind: Literal["machine"] = "machine"
    name: str
    memory: Memory
    tiers: tuple[Memory, ...] = ()
    links: dict[str, Link] = Field(default={})
    buffer: ByteCount | Literal["auto"] = "auto"
    uplink: Link | str | None = None
    verbose: bool = False
    grid: tuple[int, int] = (1, 1)
    notes: list[str] = Field(default=[], max_length=2)


GOOD = """\
name: m
memory:
  kind: dram
  stacks: 6
  pin_rate: {value: 6.4 Gb/s, source: data sheet, uncertainty: "5%"}
  timings:
    source: standard
    tRCD: 14 ns
    tRAS: 28 ns
    tRC: 42 ns
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes files named by keyword (good="..." -> good.yaml) and gives the path of the last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(presets, "data_root", lambda: tmp_path / "data")

    def write_files(**texts: str) -> Path:
        for name, text in texts.items():
            path = Path(name + ".yaml")
            path.write_text(dedent(text), encoding="utf-8")
        return path

    return write_files


def load(path: Path, overrides: Any = ()) -> LoadedSpec[Machine]:
    return load_spec(path, Machine, overrides)


def problems_of(path: Path, overrides: Any = (), model: type[Spec] = Machine) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        load_spec(path, model, overrides)
    assert "Traceback" not in str(caught.value)
    return caught.value.problems


def briefly(problems: Sequence[Problem]) -> list[tuple[int | None, str, str, str | None]]:
    return [(problem.line, problem.path, problem.message, problem.nearest) for problem in problems]


# --- what is read


def test_reads_a_file_with_units_and_sources(write: Write) -> None:
    loaded = load(write(good=GOOD))
    assert loaded.spec.memory.kind == "dram"
    assert loaded.spec.memory.pin_rate == 6_400_000_000
    assert loaded.resolved["memory"]["pin_rate"]["source"] == "data sheet"
    assert loaded.sources == {
        "memory.pin_rate": "data sheet",
        "memory.timings.tRCD": "standard",
        "memory.timings.tRAS": "standard",
        "memory.timings.tRC": "standard",
    }


def test_resolved_loads_again_to_the_same_spec(write: Write) -> None:
    first = load(write(good=GOOD, child="base: good\nname: 'on'\nnotes: ['1e3', '0x1F']"))
    again = load(write(again=first.to_yaml()))
    as_json = load(write(again=json.dumps(first.resolved)))
    assert first.spec == again.spec == as_json.spec
    assert first.resolved == again.resolved
    assert first.digest() == again.digest() == as_json.digest()


def test_the_dumped_spec_validates_to_the_same_spec(write: Write) -> None:
    spec = load(write(good=GOOD)).spec
    assert Machine.model_validate(spec.model_dump(mode="json")) == spec


def test_the_digest_sees_values_but_not_key_order(write: Write) -> None:
    one = load(write(one=GOOD)).digest()
    other_order = load(write(two="\n".join([*GOOD.splitlines()[1:], "name: m"]))).digest()
    other_value = load(write(three=GOOD.replace("14 ns", "15 ns"))).digest()
    assert one == other_order != other_value


def test_yaml_means_what_it_says(write: Write) -> None:
    loaded = load(write(good=GOOD + "notes: [on, 1:30]\nverbose: true\ngrid: [2, 0]\n"))
    assert loaded.spec.notes == ["on", "1:30"]
    assert loaded.spec.verbose is True
    assert loaded.spec.grid == (2, 0)


def test_a_spec_is_as_strict_in_python_and_takes_sources_too() -> None:
    link = Link.model_validate({"bandwidth": {"value": "1 GB/s", "source": "x"}, "lanes": {"value": 4, "source": "y"}})
    assert link == Link(bandwidth="1 GB/s", lanes=4)  # type: ignore[arg-type]
    for wrong in ({"lanes": "4"}, {"lanes": True}, {"lanes": 4.0}, {"latency": 0}):
        with pytest.raises(ValidationError):
            Link.model_validate({"bandwidth": "1 GB/s", **wrong})


def test_a_spec_may_not_redefine_base() -> None:
    with pytest.raises(TypeError, match="reserved key base"):
        type("Bad", (Spec,), {"__annotations__": {"base": str}})


@pytest.mark.parametrize(
    "text", ["1e3", "010", "yes", "null", "1:30", "=", "0x1F", "", "2024-01-01", "a: b", "~", "1_0"]
)
def test_dumped_text_stays_text(text: str) -> None:
    assert plain(parse_value(dump_yaml({"text": text}), "f")) == {"text": text}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_any_value_survives_being_dumped(value: object) -> None:
    assert plain(parse_value(dump_yaml({"value": value}), "f")) == {"value": value}


def test_a_mapping_built_in_python_is_read_like_a_file(write: Write) -> None:
    path = write(good=GOOD)
    loaded = load_mapping({"base": "good", "name": "n", "notes": ("a",)}, Machine, ["memory.stacks=8"])
    assert loaded.spec == load(path, {"name": "n", "notes": ["a"], "memory.stacks": 8}).spec
    with pytest.raises(SpecError, match=r"^\(mapping\): naem: unknown key 'naem'"):
        load_mapping({"base": "good", "naem": "n"}, Machine)


# --- what is wrong, all at once


def test_all_problems_at_once_each_where_it_stands(write: Write) -> None:
    path = write(
        bad="""\
        name: 7
        memory:
          kind: dram
          stacks: 0
          pin_rate: 6.4
          timngs: 3
          timings:
            tRCD: 14 nss
            tRAS: {value: 50 ns, sorce: standard}
            tRC: {value: 40 ns, source: 3}
          policy: opne
        tiers:
          - kind: dramm
          - kind: flash
            planes: "5"
          - {planes: 3}
        links:
          up: {bandwidth: 400 Gb/s, lanes: 0}
        buffer: auot
        uplink: {bandwith: 1 GB/s}
        verbose: yes
        grid: [1]
        notes: [a, b, c]
        """
    )
    assert briefly(problems_of(path)) == [
        (1, "name", "got 7", None),
        (4, "memory.stacks", "0 is too small", None),
        (5, "memory.pin_rate", "6.4 has no unit", None),
        (6, "memory.timngs", "unknown key 'timngs'", "timings"),
        (8, "memory.timings.tRCD", "unknown unit 'nss' in '14 nss'", "ns"),
        (9, "memory.timings.tRAS.sorce", "unknown key 'sorce'", "source"),
        (10, "memory.timings.tRC.source", "got 3", None),
        (11, "memory.policy", "got 'opne'", "open"),
        (13, "tiers[0].kind", "got 'dramm'", "dram"),
        (14, "tiers[1].page", "is required but missing", None),
        (15, "tiers[1].planes", "got '5'", None),
        (16, "tiers[2].kind", "is required but missing", None),
        (18, "links.up.bandwidth", "'400 Gb/s' is a data rate in bits per second", None),
        (18, "links.up.lanes", "0 is too small", None),
        (19, "buffer", "got 'auot'", "auto"),
        (20, "uplink.bandwidth", "is required but missing", None),
        (20, "uplink.bandwith", "unknown key 'bandwith'", "bandwidth"),
        (21, "verbose", "got 'yes'", None),
        (22, "grid[1]", "is required but missing", None),
        (23, "notes", "has 3 entries", None),
    ]


def test_messages_read_as_a_person_would_put_them(write: Write) -> None:
    path = write(bad=GOOD.replace("stacks: 6", "stacks: six").replace("timings:", "timngs:") + "colour: red\n")
    assert [str(problem) for problem in problems_of(path)] == [
        "bad.yaml:2: memory.timings: is required but missing (expected a mapping with keys such as tRCD, tRAS, tRC)",
        "bad.yaml:4: memory.stacks: got 'six' (expected a whole number above zero)",
        "bad.yaml:6: memory.timngs: unknown key 'timngs'"
        " (expected one of kind, stacks, pin_rate, timings, policy; did you mean 'timings'?)",
        "bad.yaml:11: colour: unknown key 'colour'"
        " (expected one of kind, name, memory, tiers, links, buffer, uplink, verbose, grid, notes)",
    ]


def test_a_validators_complaint_stands_at_its_object(write: Write) -> None:
    path = write(bad=GOOD.replace("42 ns", "20 ns"))
    assert briefly(problems_of(path)) == [(6, "memory.timings", "tRAS exceeds tRC", None)]


def test_a_validator_may_point_at_its_fields(write: Write) -> None:
    class Pair(Spec):
        low: int
        high: int

        @model_validator(mode="after")
        def _ordered(self) -> Pair:
            if self.low > self.high:
                raise SpecError([Problem(None, None, "high", f"{self.high} is below low", f"at least {self.low}")])
            return self

    class Pairs(Spec):
        pairs: list[Pair]

    path = write(bad="pairs:\n  - {low: 1, high: 2}\n  - low: 3\n    high: 2\n")
    assert [str(problem) for problem in problems_of(path, model=Pairs)] == [
        "bad.yaml:4: pairs[1].high: 2 is below low (expected at least 3)"
    ]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key stands twice, first on line 1"),
        ("a:\n\tb: 1\n", 2, "a tab in the indentation"),
        ("a: b: c\n", 1, "a ':' where no key can stand"),
        ("a: 1\nb\nc: 2\n", 2, "a key without ':'"),
        ("a: [1, 2\nb: 3\n", 1, "a bracket is not closed, or a comma is missing"),
        ('a: "open\n', 1, "a quote or bracket is not closed"),
        ("a: 1\n---\nb: 2\n", 2, "a second document ('---') in the file"),
        ("a: *x\n", 1, "an alias ('*name') without its anchor ('&name')"),
        ("a: &x [*x]\n", 1, "an alias refers to the value it stands in"),
        ("a: !secret 1\n", 1, "the tag '!secret' is not supported"),
        ("a: {<<: {b: 1}}\n", 1, "merge keys ('<<') are not supported"),
        ("a: .nan\n", 1, "'.nan' is not a finite number"),
        ("a: 1\nb: \x07\n", 2, "character U+0007 is not allowed in YAML"),
        ("- 1\n", 1, "the file is not a mapping"),
        ("# nothing\n", None, "the file is empty"),
    ],
)
def test_yaml_that_is_refused(write: Write, text: str, line: int | None, message: str) -> None:
    path = write(bad=text)
    found = problems_of(path)
    assert (line, message) in [(problem.line, problem.message) for problem in found]


def test_aliases_of_aliases_do_not_fill_the_memory(write: Write) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "after expanding aliases" in problems_of(write(bad="\n".join(levels)))[0].message


def test_a_missing_file_names_the_nearest(write: Write) -> None:
    write(good=GOOD)
    with pytest.raises(UserError, match=r"goood\.yaml does not exist \(did you mean 'good\.yaml'\?\)"):
        load(Path("goood.yaml"))
    with pytest.raises(UserError, match="there is no folder nowhere"):
        load(Path("nowhere/good.yaml"))


def test_errors_survive_pickling() -> None:
    error = SpecError([Problem("a.yaml", 3, "b.c", "is wrong", "right", "d")])
    assert pickle.loads(pickle.dumps(error)).problems == error.problems
    plain = pickle.loads(pickle.dumps(UserError("no", expected="yes")))
    assert str(plain) == "no (expected yes)"


FULL: dict[str, Any] = {
    "name": "m",
    "memory": {
        "kind": "dram",
        "stacks": 6,
        "pin_rate": {"value": "6.4 Gb/s", "source": "data sheet"},
        "timings": {"tRCD": "14 ns", "tRAS": "28 ns", "tRC": "42 ns"},
        "policy": "open",
    },
    "tiers": [{"kind": "flash", "planes": 4, "page": "4 KiB"}],
    "links": {"up": {"bandwidth": "1 GB/s", "lanes": 4}},
    "buffer": "auto",
    "uplink": {"bandwidth": "1 GB/s"},
    "verbose": True,
    "grid": [1, 2],
}
JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    2.5,
    "",
    "x",
    "5 us",
    "-1 GB",
    [],
    {},
    [None],
    [{}],
    {"value": 1},
    {"a": {"b": 1}},
]


def paths_in(data: Any, path: str = "") -> list[str]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    inner = [found for key, value in entries for found in paths_in(value, f"{path}.{key}" if path else str(key))]
    return [path, *inner] if path else inner


@pytest.mark.parametrize("path", paths_in(FULL))
def test_no_junk_anywhere_brings_jargon_or_a_crash(path: str) -> None:
    *outer, last = path.split(".")
    for junk in JUNK:
        data = copy.deepcopy(FULL)
        place: Any = data
        for key in outer:
            place = place[int(key) if isinstance(place, list) else key]
        place[int(last) if isinstance(place, list) else last] = junk
        try:
            load_mapping(data, Machine)
        except SpecError as error:
            assert error.problems
            for problem in error.problems:
                said = str(problem)
                assert not any(jargon in said for jargon in ("nput", "type=", "function", "pydantic", "alid ", "[key]"))
                assert problem.path.startswith(path.split(".")[0]), said


def test_a_source_belongs_to_a_single_value(write: Write) -> None:
    found = problems_of(write(bad=GOOD.replace("stacks: 6", "stacks: {value: [6], source: x}")))
    assert briefly(found) == [(4, "memory.stacks", "got a list", None)]
    found = problems_of(write(bad=GOOD.replace("stacks: 6", "stacks: {value: 6}")))
    assert briefly(found) == [(4, "memory.stacks", "a value without its source", None)]


# --- inheritance and presets


def test_base_merges_mappings_and_replaces_lists(write: Write) -> None:
    write(good=GOOD + "notes: [a, b]\n")
    path = write(child="base: good\nname: child\nmemory: {timings: {tRC: 50 ns}, stacks: 8}\nnotes: [c]\n")
    loaded = load(path)
    assert loaded.spec.name == "child"
    assert loaded.spec.memory.stacks == 8  # type: ignore[union-attr]
    assert str(loaded.spec.memory.timings.tRC) == "50 ns"  # type: ignore[union-attr]
    assert str(loaded.spec.memory.timings.tRCD) == "14 ns"  # type: ignore[union-attr]
    assert loaded.spec.notes == ["c"]
    assert "base" not in loaded.resolved
    assert [file.name for file in loaded.files] == ["child.yaml", "good.yaml"]


def test_a_mapping_with_a_kind_replaces_one_without(write: Write) -> None:
    """Its keys are those of another spec; with a kind in both, mappings merge."""
    write(good=GOOD, plain="name: m\nmemory: {stacks: 2}\n")
    loaded = load(write(child="base: plain\nmemory: {kind: flash, planes: 4, page: 4 KiB}\n"))
    assert isinstance(loaded.spec.memory, Flash) and loaded.spec.memory.planes == 4
    assert loaded.spec.name == "m"
    same = load(write(same="base: good\nmemory: {kind: dram, stacks: 2}\n")).spec.memory
    assert isinstance(same, Dram) and str(same.timings.tRC) == "42 ns"


def test_a_file_with_a_kind_inherits_from_one_without(write: Write) -> None:
    write(good=GOOD)
    assert (
        load(write(child="kind: machine\nbase: good\nname: child\n")).spec.memory == load(write(good=GOOD)).spec.memory
    )


def test_a_sourced_number_is_inherited_whole(write: Write) -> None:
    write(good=GOOD)
    path = write(child="base: good\nmemory: {pin_rate: {value: 8 Gb/s, source: other}}\n")
    assert load(path).resolved["memory"]["pin_rate"] == {"value": "8 Gb/s", "source": "other"}


def test_problems_of_a_base_stand_in_the_base(write: Write) -> None:
    write(good=GOOD.replace("stacks: 6", "stacks: 0"))
    found = problems_of(write(child="base: good\nnaem: x\n"))
    assert [(p.file, p.line, p.path) for p in found] == [("good.yaml", 4, "memory.stacks"), ("child.yaml", 2, "naem")]


def test_a_circle_of_bases_is_named(write: Write) -> None:
    write(a="base: b\n", b="base: c\n")
    found = problems_of(write(c="base: a\nname: x\n"))
    assert briefly(found)[0][1:3] == ("base", "inherits from itself: c.yaml -> a.yaml -> b.yaml -> c.yaml")
    assert found[0].file == "b.yaml"


def test_an_unknown_base_names_the_nearest_and_hides_what_it_would_have_given(write: Write) -> None:
    write(good=GOOD)
    found = problems_of(write(child="base: goood\nverbose: 3\n"))
    assert briefly(found) == [(1, "base", "there is no preset 'goood'", "good"), (2, "verbose", "got 3", None)]


def test_an_unknown_preset_is_one_problem(write: Write) -> None:
    write(flsh=GOOD)
    found = problems_of(write(bad="name: m\nmemory: flash\n"))
    assert briefly(found) == [(2, "memory", "there is no preset 'flash'", "flsh")]


def test_a_text_where_a_few_keys_are_due_says_which(write: Write) -> None:
    """And no preset that is only a little like it is suggested."""
    write(hbf_1536=GOOD)
    (found,) = problems_of(write(bad=GOOD + "links: {fast: bf16}\n"))
    assert (found.message, found.nearest) == ("there is no preset 'bf16'", None)
    assert found.expected == "a mapping with bandwidth, latency, lanes"


def test_base_works_inside_a_mapping_and_a_name_stands_for_a_spec(write: Write) -> None:
    memory = dedent(GOOD.split("memory:\n")[1])
    write(dram=memory)
    nested = load(write(nested="name: m\nmemory:\n  base: dram\n  stacks: 8\n"))
    named = load(write(named="name: m\nmemory: dram\ntiers: [dram]\n"), ["memory.stacks=8"])
    assert nested.spec.memory == named.spec.memory
    assert named.spec.memory.stacks == 8  # type: ignore[union-attr]
    assert named.spec.tiers[0].stacks == 6  # type: ignore[union-attr]
    assert load(write(again=named.to_yaml())).spec == named.spec


def test_a_text_stays_a_text_where_the_spec_takes_texts(write: Write) -> None:
    assert load(write(good=GOOD + "uplink: good\n")).spec.uplink == "good"


def test_presets_are_found_by_name_and_by_folder(write: Write, tmp_path: Path) -> None:
    for folder, name in (("memory", "hbm3"), ("systems", "hbm3"), ("systems", "h200x8")):
        target = tmp_path / "data" / "hwconfigs" / folder
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{name}.yaml").write_text("name: x\n")
    assert resolve_preset("h200x8", tmp_path).name == "h200x8.yaml"
    assert resolve_preset("memory/hbm3", tmp_path).parent.name == "memory"
    with pytest.raises(UserError, match=r"several presets .expected one of memory/hbm3, systems/hbm3"):
        resolve_preset("hbm3", tmp_path)
    with pytest.raises(UserError, match="did you mean 'h200x8'"):
        resolve_preset("h200", tmp_path)
    (tmp_path / "h200x8.yaml").write_text("name: nearer\n")
    assert resolve_preset("h200x8", tmp_path) == tmp_path / "h200x8.yaml"
    assert resolve_preset("./h200x8.yaml", tmp_path) == tmp_path / "h200x8.yaml"


def test_read_key_sees_through_bases(write: Write) -> None:
    write(good=GOOD + "kind: machine\n")
    path = write(child="base: good\n")
    assert read_key(path, "kind") == "machine"
    assert read_key(path, "nothing") is None


# --- overrides


def test_overrides_as_texts_and_as_a_mapping(write: Write) -> None:
    path = write(good=GOOD + "tiers:\n  - {kind: flash, planes: 4, page: 4 KiB}\n")
    texts = [
        "memory.stacks=8",
        "tiers[0].planes=16",
        "links.up.bandwidth=1 GB/s",
        "notes=[a, b]",
        "memory.pin_rate=8 Gb/s",
    ]
    mapping = {
        "memory": {"stacks": 8, "pin_rate": "8 Gb/s"},
        "tiers.0.planes": 16,
        "links": {"up": {"bandwidth": "1 GB/s"}},
        "notes": ("a", "b"),
    }
    one, other = load(path, texts), load(path, mapping)
    assert one.spec == other.spec
    assert one.spec.memory.stacks == 8  # type: ignore[union-attr]
    assert one.sources["memory.pin_rate"] == "override"
    assert one.resolved["memory"]["pin_rate"] == "8 Gb/s"


def test_what_is_wrong_with_overrides_names_the_override(write: Write) -> None:
    path = write(good=GOOD)
    found = problems_of(path, ["memory.timngs.tRC=3 ns", "memory.stacks=0"])
    assert sorted(str(problem) for problem in found) == [
        "override 'memory.stacks=0': memory.stacks: 0 is too small (expected a whole number above zero)",
        "override 'memory.timngs.tRC=3 ns': memory.timngs: unknown key 'timngs'"
        " (expected one of kind, stacks, pin_rate, timings, policy; did you mean 'timings'?)",
    ]
    assert "not a path and a value" in problems_of(path, ["verbose"])[0].message
    assert problems_of(path, ["notes=[a"])[0].message == "a bracket is not closed, or a comma is missing"
    tiers = write(tiers=GOOD + "tiers:\n  - {kind: flash, planes: 4, page: 4 KiB}\n")
    found = problems_of(tiers, ["tiers[3].planes=1"])
    assert (found[0].message, found[0].expected) == ("'tiers' is a list of 1", "an index from 0 to 0")
    assert problems_of(path, ["name.x=1"])[0].message == "'name' is 'm', which has no keys"


# --- sources


def test_numbers_without_a_source_are_found(write: Write) -> None:
    assert unsourced_numbers(load(write(good=GOOD))) == ["memory.stacks"]
    assert unsourced_numbers(load(write(sourced=GOOD + "source: all of it\n"))) == []


def test_a_base_does_not_vouch_for_other_files(write: Write) -> None:
    write(good=GOOD + "source: paper\n")
    assert unsourced_numbers(load(write(child="base: good\nmemory: {stacks: 8}\n"))) == ["memory.stacks"]
    assert unsourced_numbers(load(write(child="base: good\nsource: mine\nmemory: {stacks: 8}\n"))) == []


def test_a_problem_can_be_located_after_loading(write: Write) -> None:
    problem = load(write(good=GOOD)).problem("memory.timings.tRC", "is odd")
    assert str(problem) == "good.yaml:10: memory.timings.tRC: is odd"
