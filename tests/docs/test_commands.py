"""Every command in README.md and docs/ runs as it is written, on a very small dataset, or has a reason here why not.

Every setting they mention exists, and the README's table has all the tools.
"""

import argparse
import importlib
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from detector.config.file import load_config
from detector.config.schema import Config

sys.path.append(str(Path(__file__).parent))  # not a package: tests are collected with --import-mode=importlib
markdown = importlib.import_module("markdown_pages")

pytestmark = pytest.mark.usefixtures("blank_figures")

COMMAND = re.compile(r"(make|pip|source|python) ")
DOWNLOADS = "downloads a dataset; tests/datasets runs it on a small archive"
MEASURES = "prints performance figures, which takes minutes"
NOT_RUN = {
    "make demo": "trains for 9 minutes",
    "make test": "is what runs this",
    "make docs": "test_links.py builds the site",
    "source .venv/bin/activate": "is the shell's",
    "pip install -e '.[timm]'": "installs from the network",
    "python datasets/make_shapes.py": "draws 1600 images into data/; tests/datasets draws fewer",
    "python datasets/prepare_bccd.py": DOWNLOADS,
    "python datasets/prepare_voc.py": DOWNLOADS,
    "python datasets/prepare_coco.py": DOWNLOADS,
    "python tools/eval.py configs/retinanet_r50_fpn_v2_coco.yaml": "needs COCO and torchvision's weights",
    "python tools/train.py --replay runs/mine/bad_batch.pt": "tests/training/test_anomalies.py replays a step",
    "python tools/verify_resume.py configs/mine.yaml --steps 20 --kills 3": "takes a minute; tests/training does it",
    "python benchmarks/train_step.py": MEASURES,
    "python benchmarks/attention.py": MEASURES,
    "python benchmarks/focal_loss.py": MEASURES,
    "python benchmarks/losses.py": MEASURES,
    "python benchmarks/evaluation.py": MEASURES,
    "python benchmarks/coco_memory.py": MEASURES,
}


def documented() -> list[str]:
    """The commands of all pages, each once, without comments and the redirection of their output."""
    found = {}
    for page in markdown.PAGES:
        lines = [line for block in markdown.blocks(page, "console", "bash") for line in block.text.splitlines()]
        lines += [code for code in markdown.inline_code(page) if COMMAND.match(code)]
        for line in filter(None, map(str.strip, lines)):
            found[re.split(r" +# | > ", line)[0].strip()] = page.name
    return list(found)


RUN = [command for command in documented() if command not in NOT_RUN]


def split(command: str) -> tuple[str, str, list[str]]:
    """Folder, name and arguments of `python folder/name.py arguments`."""
    python, script, *arguments = shlex.split(command)
    assert python == "python" and (markdown.ROOT / script).is_file(), command
    return Path(script).parent.name, Path(script).stem, arguments


@pytest.fixture(scope="module")
def trained() -> dict[str, Path]:
    """Holds the run that the first test trains, for all of them."""
    return {}


@pytest.fixture
def desk(tiny_dataset, tiny_config, tmp_path, monkeypatch, trained, succeeds, tmp_path_factory) -> Path:
    """A folder, the working directory, with the files that the documentation's commands name."""
    desk = tmp_path / "desk"
    for folder in ("configs", "datasets", "runs", "Annotations"):
        (desk / folder).mkdir(parents=True)
    monkeypatch.chdir(desk)
    for split_name in ("train", "val"):
        shutil.move(tmp_path / split_name, desk / "datasets" / "mine" / split_name)
        shutil.move(tmp_path / f"{split_name}.json", desk / "datasets" / "mine" / f"{split_name}.json")
    lines = [f"{s}: {{images: mine/{f}, annotations: mine/{f}.json}}\n" for s, f in zip(*SPLITS, strict=True)]
    for name in ("mine", "other", "bccd"):
        (desk / "datasets" / f"{name}.yaml").write_text("".join(lines))
    make_one_class_rare(desk / "datasets/mine/train.json")
    config = yaml.safe_load(tiny_config.read_text())
    config["data"]["dataset"] = "datasets/mine.yaml"
    del config["output_dir"]
    for name in ("mine", "finetune", "quickstart"):
        (desk / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(config))

    shutil.copy("datasets/mine/val/1.png", desk / "photo.jpg")
    shutil.copytree("datasets/mine/val", desk / "folder")
    shutil.copytree("datasets/mine/val", desk / "images" / "train")
    shutil.copytree("datasets/mine/val", desk / "JPEGImages")
    (desk / "Annotations" / "1.xml").write_text(VOC)
    (desk / "labels" / "train").mkdir(parents=True)
    (desk / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    (desk / "data.yaml").write_text("names: [light, dark]\n")
    (desk / "boxes.csv").write_text("folder/1.png,1,1,20,20,light\n")

    if not trained:
        succeeds("train", "configs/mine.yaml", "train.epochs=1")
        trained["run"] = tmp_path_factory.mktemp("trained") / "run"
        shutil.move("runs/mine", trained["run"])
    for name in ("mine", "plain", "auto"):
        shutil.copytree(trained["run"], desk / "runs" / name)
    settings = desk / "runs" / "auto" / "config.yaml"  # it differs from the others in a setting
    settings.write_text(settings.read_text().replace("sampling: uniform", "sampling: repeat_factor"))
    return desk


SPLITS = (("train", "val", "test"), ("train", "val", "val"))
VOC = """<annotation><filename>1.png</filename><size><width>64</width><height>48</height><depth>3</depth></size>
<object><name>light</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>
"""


def make_one_class_rare(file: Path) -> None:
    """Leave one box of the class `dark` (id 3), and many of `light` (id 7), so that there is something to paste."""
    coco = json.loads(file.read_text())
    dark = [annotation for annotation in coco["annotations"] if annotation["category_id"] == 3]
    light = [annotation for annotation in coco["annotations"] if annotation["category_id"] == 7]
    more = [box | {"id": box["id"] + 1000 * n, "bbox": [n, n, 20, 20]} for n in range(1, 9) for box in light]
    coco["annotations"] = [*dark[:1], *light, *more]
    file.write_text(json.dumps(coco))


def keep_train_only() -> None:
    """Let datasets/mine.yaml have no val, and its images a column `patient`."""
    descriptor, file = Path("datasets/mine.yaml"), Path("datasets/mine/train.json")
    descriptor.write_text(descriptor.read_text().splitlines()[0] + "\n")
    coco = json.loads(file.read_text())
    coco["images"] = [image | {"patient": image["id"]} for image in coco["images"]]
    file.write_text(json.dumps(coco))


@pytest.mark.parametrize("command", RUN)
def test_a_command_does_what_is_written(command, desk, tool, monkeypatch):
    folder, name, arguments = split(command)
    monkeypatch.syspath_prepend(markdown.ROOT / folder)
    if name == "train" and not {"--resume", "--show-config"} & set(arguments):
        arguments.append("train.epochs=1")  # the last of two wins
    if name == "train" and not {"--resume", "--overwrite", "--show-config"} & set(arguments):
        shutil.rmtree("runs")
    if name == "split":
        keep_train_only()
    elif folder == "datasets":
        Path("datasets/mine/train.json").unlink()
    for option in {"--write-config", "--html", "--fix"} & set(arguments):
        Path(arguments[arguments.index(option) + 1]).unlink(missing_ok=True)
    code, _, error = tool(f"../{folder}/{name}", *arguments)
    assert code == 0, error


class Parsed(BaseException):
    """The arguments are right: nothing more is asked of the command."""


@pytest.mark.parametrize("command", [command for command in NOT_RUN if command.startswith("python ")])
def test_a_command_that_is_not_run_has_right_arguments(command, tool, monkeypatch):
    folder, name, arguments = split(command)
    monkeypatch.syspath_prepend(markdown.ROOT / folder)
    for method in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, method, parse_and_stop(method))
    with pytest.raises(Parsed):
        tool(f"../{folder}/{name}", *arguments)


def parse_and_stop(method: str):
    parse = getattr(argparse.ArgumentParser, method)

    def parse_then_stop(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise Parsed

    return parse_then_stop


def test_what_is_not_run_is_documented():
    assert set(NOT_RUN) <= set(documented())


def synopses() -> dict[str, list[str]]:
    """Tool → what the README's table of commands says of its arguments."""
    found: dict[str, list[str]] = {}
    for code in markdown.inline_code(markdown.ROOT / "README.md"):
        if match := re.match(r"tools/(\w+)\.py (.*)", code):
            found.setdefault(match[1], []).append(match[2])
    return found


def test_the_table_of_commands_has_every_tool():
    assert set(synopses()) == {path.stem for path in (markdown.ROOT / "tools").glob("*.py")}


@pytest.mark.parametrize("name", synopses())
def test_the_table_of_commands_has_options_that_exist(name, succeeds):
    text, shown = succeeds(name, "--help"), " ".join(synopses()[name])
    assert set(re.findall(r"--[\w-]+", shown)) <= set(re.findall(r"--[\w-]+", text))
    assert "path=value" in text or "path=value" not in shown


SECTIONS = "|".join(name for name, field in Config.model_fields.items() if hasattr(field.annotation, "model_fields"))
SETTING = re.compile(rf"(?<![\w/.-])(?:{SECTIONS})(?:\.[a-z_0-9]+)+")
FILES = {"yaml", "json", "py", "png", "jpg"}


@pytest.mark.parametrize("page", markdown.PAGES, ids=lambda page: page.name)
def test_settings_exist(page):
    code = markdown.inline_code(page) + [block.text for block in markdown.blocks(page, "console", "text", "yaml")]
    for path in {path for text in code for path in SETTING.findall(text)}:
        section, names = Config, path.split(".")
        for name in names if names[-1] not in FILES else ():
            assert name in section.model_fields, f"{page.name}: no setting {path}"
            section = section.model_fields[name].annotation


def test_the_ten_line_config_of_the_readme_is_valid(tmp_path):
    configs = [b.text for b in markdown.blocks(markdown.ROOT / "README.md", "yaml") if b.text.startswith("base:")]
    assert len(configs) == 1 and len(configs[0].splitlines()) <= 10
    shutil.copytree(markdown.ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs" / "mine.yaml").write_text(configs[0])
    config = load_config(tmp_path / "configs" / "mine.yaml")
    assert (config.train.metric, config.model.head.norm) == ("tail", "group")  # its own, and its base's


def test_the_picture_of_the_readme_is_small():
    for link in markdown.links(markdown.ROOT / "README.md"):
        if link.endswith((".jpg", ".png")):
            assert (markdown.ROOT / link).stat().st_size < 200_000
            assert min(Image.open(markdown.ROOT / link).size) > 300
