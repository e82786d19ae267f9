"""A trained model to the Hub, in one commit, with its card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guiderail.agent.errors import SetupError
from guiderail.agent.origin import install
from guiderail.launch.hub.model_card import Known, Trained, looks_known, model_card

_LEFT_OUT = (".lock", "README.md", "training_args.bin")


def files_of(made: Trained, known: Known) -> dict[str, Path]:
    """What is uploaded besides the card: name in the repository -> file. Raises SetupError for an adapter that nobody else
    could load."""
    if made.is_adapter and not known(made.base, "model"):
        raise SetupError(
            f"{made.model} is an adapter of {made.base}, which others cannot load by this name; run: guiderail model merge "
            f"{made.model} --out {made.model}-merged, then push with --model {made.model}-merged"
        )
    found = sorted(path for path in made.model.rglob("*") if path.is_file() and path.name not in _LEFT_OUT)
    return {path.relative_to(made.model).as_posix(): path for path in found}


def push(made: Trained, repo: str, scores: Sequence[Path] = (), *, private: bool = False) -> str:
    """Create the repository if needed, and commit. Returns its address. Raises SetupError without a token, offline, and
    where the Hub refuses."""
    try:
        from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise SetupError(f"the Hub is reached through huggingface_hub; run: {install('train')}") from None
    likely = looks_known(made)
    files_of(made, likely)  # what is wrong with the run or its scores is said before the Hub is asked
    model_card(made, scores)
    if constants.HF_HUB_OFFLINE:
        raise SetupError("HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it")
    if not (token := get_token()):
        raise SetupError(
            "no token of the Hub on this machine; run: hf auth login, or set HF_TOKEN (a token that can write)"
        )
    api = HfApi(token=token)

    def known(name: str, kind: str) -> bool:
        return likely(name, kind) and api.repo_exists(name, repo_type=kind)

    try:
        files = files_of(made, known)
        url = api.create_repo(repo, private=private, exist_ok=True)
        card = model_card(made, scores, url.repo_id, known)
        operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        operations.append(CommitOperationAdd("README.md", card.encode()))
        about = f"{made.config['method']['algorithm']}, {made.metrics['updates']} updates"
        api.create_commit(url.repo_id, operations, commit_message=f"Trained with Guiderail: {about}")
    except (OSError, ValueError, RuntimeError, HfHubHTTPError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SetupError(
            f"the Hub did not take {repo} ({said}); check the name, and with `hf auth whoami` whether the token can write there"
        ) from None
    return str(url)
