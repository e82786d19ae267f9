from pathlib import Path


def resolve_split(spec):
    return set((Path(__file__).parent / "splits" / f"{spec}.txt").read_text().split())
