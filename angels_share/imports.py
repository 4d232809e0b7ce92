"""Import by name, so that a function can be named in files and across processes."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
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


def needed(module: str, purpose: str) -> Any:
    """Import and return a module of a package that much of us does without.

    Everything is installed with us; on a machine that others set up, a package may still lack.

    Args:
        module: its full name.
        purpose: what needs it.

    Raises:
        UserError: its package is not installed; the error says what to type.
    """
    package = module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"{purpose} needs the package '{package}', which isn't installed for "
            f"{sys.executable}: python -m pip install {package}"
        )
    return importlib.import_module(module)


def require_extra(packages: str | Sequence[str], extra: str, purpose: str) -> None:
    """Refuse to go on without packages of an extra, which the rest does without.

    Args:
        packages: by the names that are imported.
        extra: what installs them.
        purpose: what needs them.

    Raises:
        UserError: one is not installed; the error says what to type.
    """
    names = [packages] if isinstance(packages, str) else packages
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"{purpose} needs {' and '.join(missing)}, which {are} not installed: "
            f"pip install -c constraints.txt '.[{extra}]'"
        )
