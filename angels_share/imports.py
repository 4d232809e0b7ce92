"""Import by name, so that a function can be named in files and across processes."""

import importlib
from typing import Any

from angels_share.errors import UserError


def resolve(name: str) -> Any:
    """Import and return what `package.module:attribute` names.

    Raises:
        UserError: there is no such module or attribute, or importing it fails.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever an import may raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{name!r} cannot be imported as package.module:name: {reason}") from error
