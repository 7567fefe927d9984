"""Names of encoders that another library builds: ``timm:convnextv2_tiny``, ``transformers:./folder``."""

LIBRARY_NAMES = ("timm", "transformers")
"""What stands before the colon."""
PATHS = ("./", "../", "/", "~", ".\\", "..\\")
"""How the part after the colon begins where it is a folder."""


def is_library_name(name: object) -> bool:
    """Return True if a name of an encoder names a library."""
    return isinstance(name, str) and name.partition(":")[0] in LIBRARY_NAMES and ":" in name


def is_folder_name(name: str) -> bool:
    """Return True if the part after the colon is a folder, not a name on the hub."""
    return name.startswith(PATHS)
