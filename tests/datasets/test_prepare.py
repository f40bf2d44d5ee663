"""prepare_*: tiny archives and folders in place of the large ones; and the descriptors that go with them."""

import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


def voc_folder(folder: Path, make_image, split: dict, box=(11, 21, 30, 60), name="RBC") -> None:
    """A VOC folder with one object in each image; split maps list names to image stems."""
    for part, stems in split.items():
        (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Main/{part}.txt").write_text("".join(f"{stem}\n" for stem in stems))
        for stem in stems:
            make_image(folder / f"JPEGImages/{stem}.jpg", 100, 80)
            (folder / "Annotations").mkdir(exist_ok=True)
            keys = ("xmin", "ymin", "xmax", "ymax")
            corners = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, box, strict=True))
            (folder / f"Annotations/{stem}.xml").write_text(
                f"<annotation><object><name>{name}</name><bndbox>{corners}</bndbox></object></annotation>"
            )


def zipped(folder: Path, file: Path) -> None:
    """Zip the folder's files under their paths relative to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))


@pytest.fixture
def coco_mirror(tmp_path, make_image):
    """A folder of zips laid out as the COCO server's, with two images a split."""
    for split in ("train2017", "val2017"):
        names = [f"{split}_{number}.jpg" for number in range(2)]
        for name in names:
            make_image(f"content/{split}/{split}/{name}", 20, 10)
        annotations = tmp_path / f"content/annotations/annotations/instances_{split}.json"
        annotations.parent.mkdir(parents=True, exist_ok=True)
        annotations.write_text(json.dumps({"images": [{"file_name": name} for name in names]}))
        (annotations.parent / f"captions_{split}.json").write_text("{}")
        zipped(tmp_path / f"content/{split}", tmp_path / f"mirror/zips/{split}.zip")
    zipped(tmp_path / "content/annotations", tmp_path / "mirror/annotations/annotations_trainval2017.zip")
    return tmp_path / "mirror"


def test_coco_downloads_unpacks_and_skips_what_is_there(coco_mirror, run_script, tmp_path):
    out = tmp_path / "coco"
    arguments = ("prepare_coco.py", "--out", out, "--source", coco_mirror.as_uri())
    done = run_script(*arguments)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in out.rglob("*.*")) == [
        "instances_train2017.json",
        "instances_val2017.json",
        "train2017_0.jpg",
        "train2017_1.jpg",
        "val2017_0.jpg",
        "val2017_1.jpg",
    ]

    (coco_mirror / "zips/train2017.zip").unlink()
    assert run_script(*arguments).stdout.count("already there") == 2
    (out / "val2017/val2017_1.jpg").unlink()
    assert run_script(*arguments, "--splits", "val2017").returncode == 0
    assert (out / "val2017/val2017_1.jpg").exists()


def test_coco_says_what_is_wrong(coco_mirror, run_script, tmp_path):
    arguments = ("prepare_coco.py", "--out", tmp_path / "coco", "--source", coco_mirror.as_uri())
    (coco_mirror / "zips/val2017.zip").write_bytes(b"not a zip")
    done = run_script(*arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "not a valid zip file" in done.stderr
    zipped(tmp_path / "content/train2017", tmp_path / "coco/val2017.zip")
    done = run_script(*arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "lacks 2 images" in done.stderr
    done = run_script("prepare_coco.py", "--out", tmp_path / "other", "--source", "file:///nowhere")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "cannot download" in done.stderr


class RangeServer(BaseHTTPRequestHandler):
    """Serves b"0123456789" whatever the path, from the byte that a Range header asks for."""

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        self.server.starts.append(start)
        body = b"0123456789"[start:]
        self.send_response(206 if start and body else 200 if body else 416)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize("there", [b"", b"0123", b"0123456789"])
def test_download_continues_where_it_stopped(scripts_on_path, tmp_path, there):
    from download import download

    (tmp_path / "file.part").write_bytes(there)
    with ThreadingHTTPServer(("127.0.0.1", 0), RangeServer) as server:
        server.starts = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        download(f"http://127.0.0.1:{server.server_port}/file", tmp_path / "file")
        server.shutdown()
    assert server.starts == [len(there)]
    assert (tmp_path / "file").read_bytes() == b"0123456789"
    assert not (tmp_path / "file.part").exists()


def test_download_restarts_where_the_server_cannot_continue(scripts_on_path, tmp_path):
    from download import download

    (tmp_path / "source").write_bytes(b"0123456789")
    (tmp_path / "file.part").write_bytes(b"01")
    download((tmp_path / "source").as_uri(), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


@pytest.mark.parametrize("packed", [True, False])
def test_bccd_from_a_clone_or_an_archive(make_image, run_script, tmp_path, packed):
    voc = tmp_path / "content/BCCD_Dataset-master/BCCD"
    voc_folder(voc, make_image, {"val": ["b"], "test": ["c"]})
    voc_folder(voc, make_image, {"train": ["a"]}, box=(5, 5, 5, 5))
    source = tmp_path / "content/BCCD_Dataset-master"
    if packed:
        zipped(tmp_path / "content", tmp_path / "bccd.zip")
        source = (tmp_path / "bccd.zip").as_uri()
    out = tmp_path / "bccd"
    done = run_script("prepare_bccd.py", "--out", out, "--source", source)
    assert done.returncode == 0, done.stderr
    assert "1 image (1 without objects), 0 objects, 1 bad left out" in done.stdout
    val = json.loads((out / "annotations/val.json").read_text())
    assert [category["name"] for category in val["categories"]] == ["RBC", "WBC", "Platelets"]
    assert val["annotations"][0]["bbox"] == [10, 20, 20, 40]
    assert (out / "JPEGImages" / val["images"][0]["file_name"]).exists()
    assert "already there" in run_script("prepare_bccd.py", "--out", out, "--source", source).stdout


def test_bccd_refuses_an_incomplete_clone(make_image, run_script, tmp_path):
    voc_folder(tmp_path / "clone", make_image, {"train": ["a", "b"], "val": ["c"], "test": ["d"]})
    (tmp_path / "clone/JPEGImages/b.jpg").unlink()
    done = run_script("prepare_bccd.py", "--out", tmp_path / "bccd", "--source", tmp_path / "clone")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "b.xml: its image is missing" in done.stderr
    (tmp_path / "empty").mkdir()
    done = run_script("prepare_bccd.py", "--out", tmp_path / "bccd", "--source", tmp_path / "empty")
    assert done.returncode == 2 and "has no ImageSets/Main/train.txt" in done.stderr


def test_voc_joins_07_and_12(make_image, run_script, tmp_path):
    devkit = tmp_path / "VOCdevkit"
    voc_folder(devkit / "VOC2007", make_image, {"trainval": ["000001"], "test": ["000002"]}, name="dog")
    voc_folder(devkit / "VOC2012", make_image, {"trainval": ["2008_000001"]}, name="cat")
    done = run_script("prepare_voc.py", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    train = json.loads((tmp_path / "annotations/train.json").read_text())
    names = [image["file_name"] for image in train["images"]]
    assert names == ["VOC2007/JPEGImages/000001.jpg", "VOC2012/JPEGImages/2008_000001.jpg"]
    assert all((devkit / name).exists() for name in names)
    assert len(train["categories"]) == 20
    assert [a["category_id"] for a in train["annotations"]] == [12, 8]
    test = json.loads((tmp_path / "annotations/test.json").read_text())
    assert [image["file_name"] for image in test["images"]] == ["VOC2007/JPEGImages/000002.jpg"]


@pytest.mark.parametrize("name", ["shapes", "coco2017", "bccd", "voc"])
def test_descriptors(name):
    file = DATASETS / f"{name}.yaml"
    header = file.read_text().split("classes:")[0]
    assert all(word in header for word in ("# Source:", "# Licence:", "# Prepare: python datasets/"))
    content = yaml.safe_load(file.read_text())
    assert content["classes"] == "auto" and {"train", "val"} <= set(content)
    for split in set(content) - {"classes"}:
        assert set(content[split]) == {"images", "annotations"}
        assert all(path.startswith("../data/") for path in content[split].values())
