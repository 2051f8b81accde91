"""Limits on what strangers may hand us: lines, nesting, names, headers.

Each is far above any honest use and low enough that reaching it costs neither time nor memory.
"""

KIB = 1 << 10
MIB = 1 << 20

LINE_BYTES = MIB
"""Longest line of a JSON lines file, in bytes."""

NESTING = 32
"""Deepest nesting of lists and objects in one line."""

KEYS = 64
"""Most keys of one object."""

DIGITS = 100
"""Most digits of one number as written."""

HEADER_BYTES = 100_000_000
"""Largest header of a safetensors file, in bytes (the format's own limit)."""

CONFIG_BYTES = 16 * MIB
"""Largest ``config.json``, ``change.json`` or index file, in bytes."""

TOKENIZER_BYTES = 256 * MIB
"""Largest file of a tokenizer, in bytes."""

TEMPLATE_BYTES = MIB
"""Longest chat template, in bytes."""

NAME_BYTES = 255
"""Longest part of a path, in bytes of UTF-8 (the limit of common file systems)."""

PATH_BYTES = KIB
"""Longest relative path, in bytes of UTF-8."""

CERTIFICATE_BYTES = 4 * MIB
"""Largest certificate, in bytes."""

KEY_BYTES = 64 * KIB
"""Largest key file, in bytes."""

AUDIT_BYTES = 512 * MIB
"""Largest file of an audit folder, in bytes."""
