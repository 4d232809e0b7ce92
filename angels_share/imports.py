"""Import by name, so that a function can be named in files and across processes."""

import importlib
import importlib.util
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


def require_extra(package: str, extra: str, purpose: str) -> None:
    """Refuse to go on without a package of an extra, which the rest does without.

    Raises:
        UserError: it is not installed; the error says what to type.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"{purpose} needs {package}, which is not installed: pip install -e '.[{extra}]'"
        )
