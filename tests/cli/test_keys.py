"""Keys, values and comments as the YAML files have them."""

from pathlib import Path

from rl_runner.cli import keys


def test_values_and_comments_are_read_as_written(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(
        "# What it is.\ndefaults:\n  - base\n  - _self_\n\na: 1e-4   # one\nb:\nc: [1,\n  2]  # two\n"
        "d:         # three\n  e: 'x # y'\n  f: {}\ng: ${a} # four"
    )
    bases, found = keys._parse(file, "p")
    assert bases == ["base"]
    assert found == [
        ("p.a", "1e-4", "one"),
        ("p.b", "", ""),
        ("p.c", "[1, 2]", "two"),
        ("p.d", "", "three"),
        ("p.d.e", "'x # y'", ""),
        ("p.d.f", "{}", ""),
        ("p.g", "${a}", "four"),
    ]
