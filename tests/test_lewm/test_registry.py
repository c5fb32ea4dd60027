"""Names -> constructors, through the public functions only; every test uses a kind of its own."""

import uuid

import pytest

from lewm import registry
from lewm.types import InputError


@pytest.fixture
def kind():
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
def part(kind):
    @registry.register(kind, "box")
    class Box:
        def __init__(self, size, *, width=64, sides=(1, 2)):
            self.size, self.width, self.sides = size, width, sides

    return Box


def test_register_hands_the_constructor_back_unchanged(kind, part):
    assert registry.get(kind, "box") is part
    assert registry.names(kind) == ["box"]


def test_names_are_sorted(kind):
    for name in ("pear", "apple", "fig"):
        registry.register(kind, name)(type(name, (), {}))
    assert registry.names(kind) == ["apple", "fig", "pear"]
    assert registry.names("no such kind") == []


def test_functions_can_be_parts(kind):
    registry.register(kind, "double")(lambda x, *, factor=2: x * factor)
    assert registry.build(kind, {"name": "double"}, x=4) == 8
    assert registry.build(kind, {"name": "double", "factor": 3}, x=4) == 12


def test_a_taken_name_is_an_error(kind, part):
    with pytest.raises(InputError, match="already"):
        registry.register(kind, "box")(type("Other", (), {}))
    assert registry.get(kind, "box") is part


def test_a_taken_name_is_an_error_also_for_a_class_of_the_same_name_elsewhere(kind):
    first, second = (type("Encoder", (), {"__module__": module}) for module in ("package_a", "package_b"))
    registry.register(kind, "mine")(first)
    with pytest.raises(InputError, match=r"package_a\.Encoder"):
        registry.register(kind, "mine")(second)
    assert registry.get(kind, "mine") is first


def test_registering_the_same_definition_again_is_allowed(kind):
    """A module that is reloaded runs its decorators again."""
    first, second = (type("Encoder", (), {"__module__": "package"}) for _ in range(2))
    registry.register(kind, "mine")(first)
    registry.register(kind, "mine")(second)
    assert registry.get(kind, "mine") is second


def test_an_unknown_name_offers_the_nearest(kind, part):
    with pytest.raises(InputError, match="did you mean 'box'"):
        registry.get(kind, "bux")
    with pytest.raises(InputError, match="known: none"):
        registry.get("no such kind", "box")


def test_defaults_are_the_keywords_as_plain_values(kind, part):
    assert registry.defaults(kind, "box") == {"width": 64, "sides": [1, 2]}


def test_build_passes_settings_and_only_the_facts_asked_for(kind, part):
    box = registry.build(kind, {"name": "box", "width": 3}, size=7, unrelated="ignored")
    assert (box.size, box.width, box.sides) == (7, 3, (1, 2))


def test_build_rejects_unknown_settings_and_offers_the_nearest(kind, part):
    with pytest.raises(InputError, match="no setting 'widht': did you mean 'width'"):
        registry.build(kind, {"name": "box", "widht": 3}, size=7)


def test_facts_cannot_be_set_from_a_config(kind, part):
    with pytest.raises(InputError, match="no setting 'size'"):
        registry.build(kind, {"name": "box", "size": 3}, size=7)


def test_build_needs_a_name(kind, part):
    with pytest.raises(InputError, match="needs a name"):
        registry.build(kind, {"width": 3})


def test_build_leaves_the_spec_alone(kind, part):
    spec = {"name": "box", "width": 3}
    registry.build(kind, spec, size=1)
    assert spec == {"name": "box", "width": 3}


def test_options_are_shared_with_the_base_class(kind):
    class Base:
        def __init__(self, size, *, width=1, depth=2):
            self.made = (size, width, depth)

    @registry.register(kind, "open")
    class Open(Base):
        def __init__(self, *, extra=5, depth=9, **options):
            super().__init__(depth=depth, **options)

    @registry.register(kind, "closed")
    class Closed(Base):
        def __init__(self, *, extra=5):
            super().__init__(0)

    assert registry.defaults(kind, "open") == {"extra": 5, "depth": 9, "width": 1}
    assert registry.defaults(kind, "closed") == {"extra": 5}
    assert registry.build(kind, {"name": "open", "width": 4}, size=3).made == (3, 4, 9)
    with pytest.raises(InputError, match="no setting 'width'"):
        registry.build(kind, {"name": "closed", "width": 4})


def test_plugins_register_their_parts_on_import(tmp_path, monkeypatch, kind):
    module = f"plugin_{uuid.uuid4().hex}"
    (tmp_path / f"{module}.py").write_text(
        f"from lewm.registry import register\n@register({kind!r}, 'mine')\ndef mine(): return 42\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry.load_plugins([module])
    assert registry.build(kind, {"name": "mine"}) == 42


@pytest.mark.parametrize("module", ["no_such_plugin_anywhere", "no_such_package.part", "lewm.no_such_part"])
def test_a_missing_plugin_says_what_to_install(module):
    with pytest.raises(InputError, match=module):
        registry.load_plugins([module])


def test_a_plugin_with_a_missing_dependency_shows_that_dependency(tmp_path, monkeypatch):
    module = f"plugin_{uuid.uuid4().hex}"
    (tmp_path / f"{module}.py").write_text("import no_such_dependency_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency_anywhere"):
        registry.load_plugins([module])
