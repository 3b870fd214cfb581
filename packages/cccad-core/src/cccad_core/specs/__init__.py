"""A spec is one TOML file made into frozen attrs objects, and back, and described.

`structure` reads, `plain` writes, `describe` explains; `field_types` says which types a field may have, and `toml`
treats TOML as text.
"""

from cccad_core.specs.describe import describe
from cccad_core.specs.field_types import Kind
from cccad_core.specs.plain import parts, unstructure
from cccad_core.specs.structure import load, structure
from cccad_core.specs.toml import digest, to_toml

__all__ = ["Kind", "describe", "digest", "load", "parts", "structure", "to_toml", "unstructure"]
