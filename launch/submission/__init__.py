"""A result as a bundle that a stranger can verify: build, verify, lint, export, compare, board.

A bundle is a zip of stored (never compressed) members in one canonical layout:

    manifest.json        what was run, by what, on what; declared tasks and seeds; the claimed numbers
    attempts.jsonl       one line per attempt, sorted by unit, step and sample; every number is computed from these
    screenshots/H.png    by SHA-256 of their bytes, where the run kept them
    SHA256SUMS           of all of the above, as `sha256sum -c` reads it; its own SHA-256 is the root hash
    SIGNATURE.json       optional: Ed25519 over the root hash
"""
