"""from_voc, from_yolo, from_csv: literal files in, literal COCO out; an error is one line that says where."""

import json

import pytest


def boxes_of(file) -> list[tuple]:
    """(file name, class, bbox, iscrowd) of each object, then (file name,) of each image without objects."""
    coco = json.loads(file.read_text())
    images = {image["id"]: image["file_name"] for image in coco["images"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    objects = coco["annotations"]
    found = [(images[a["image_id"]], names[a["category_id"]], a["bbox"], a["iscrowd"]) for a in objects]
    empty = set(images) - {a["image_id"] for a in objects}
    return found + [(images[number],) for number in sorted(empty)]


def fails(done, *parts: str) -> None:
    """The command ended with code 2 and one line on stderr that holds all the parts."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr


# ------------------------------------------------------------------- VOC


def voc_object(name: str, *corners, difficult: int = 0) -> str:
    keys = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{key}>{value}</{key}>" for key, value in zip(keys, corners, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"


@pytest.fixture
def voc(tmp_path, make_image):
    """voc("a", objects) writes the image a.jpg of 100x80 px and its XML."""

    def write(stem: str, *objects: str, width: int = 100) -> None:
        make_image(f"JPEGImages/{stem}.jpg", 100, 80)
        folder = tmp_path / "Annotations"
        folder.mkdir(exist_ok=True)
        size = f"<size><width>{width}</width><height>80</height></size>"
        (folder / f"{stem}.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")

    return write


def test_voc_boxes_are_one_based_and_inclusive(voc, run_script, tmp_path):
    voc("a", voc_object("dog", 1, 1, 100, 80), voc_object("cat", 11, 21, 30, 60, difficult=1))
    voc("b")
    out = tmp_path / "out.json"
    done = run_script("from_voc.py", tmp_path / "Annotations", tmp_path / "JPEGImages", out)
    assert done.returncode == 0, done.stderr
    assert boxes_of(out) == [("a.jpg", "dog", [0, 0, 100, 80], 0), ("a.jpg", "cat", [10, 20, 20, 40], 1), ("b.jpg",)]
    assert "2 images (1 without objects), 2 objects" in done.stdout


def test_voc_list_and_categories_of(voc, run_script, tmp_path):
    voc("a", voc_object("dog", 1, 1, 10, 10))
    voc("b", voc_object("cat", 1, 1, 10, 10))
    (tmp_path / "val.txt").write_text("a\n")
    like = tmp_path / "train.json"
    like.write_text(json.dumps({"categories": [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}]}))
    out = tmp_path / "out.json"
    folders = tmp_path / "Annotations", tmp_path / "JPEGImages"
    run_script("from_voc.py", *folders, out, "--list", tmp_path / "val.txt", "--categories-of", like)
    coco = json.loads(out.read_text())
    assert coco["categories"] == json.loads(like.read_text())["categories"]
    assert [a["category_id"] for a in coco["annotations"]] == [9]
    like.write_text(json.dumps({"categories": [{"id": 4, "name": "dogs"}]}))
    fails(run_script("from_voc.py", *folders, out, "--categories-of", like), "unknown class 'dog'", "'dogs'")


@pytest.mark.parametrize(
    ("corners", "message"),
    [((50, 50, 50, 60), "box is empty"), ((0, "x", 5, 5), "lacks a number"), ((1, 1, 120, 60), "outside its")],
)
def test_voc_bad_object_names_file_and_number(voc, run_script, tmp_path, corners, message):
    voc("a", voc_object("cat", 2, 2, 9, 9), voc_object("cat", *corners))
    arguments = (tmp_path / "Annotations", tmp_path / "JPEGImages", tmp_path / "out.json")
    fails(run_script("from_voc.py", *arguments), "a.xml: object 2", message)
    done = run_script("from_voc.py", *arguments, "--drop-bad")
    assert "1 object, 1 bad left out" in done.stdout and "a.xml: object 2" in done.stdout
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "cat", [1, 1, 8, 8], 0)]


def test_voc_image_missing_or_of_another_size(voc, run_script, tmp_path):
    voc("a", voc_object("cat", 2, 2, 9, 9), width=80)
    arguments = (tmp_path / "Annotations", tmp_path / "JPEGImages", tmp_path / "out.json")
    fails(run_script("from_voc.py", *arguments), "a.xml", "states a size of 80x80", "is 100x80")
    (tmp_path / "JPEGImages/a.jpg").unlink()
    fails(run_script("from_voc.py", *arguments), "a.xml", "its image is missing")
    (tmp_path / "Annotations/a.xml").write_text("<annotation>")
    fails(run_script("from_voc.py", *arguments), "a.xml", "cannot be read as XML")
    fails(run_script("from_voc.py", tmp_path / "no", *arguments[1:]), "is not a folder")


def test_voc_size_tells_which_way_up(voc, make_image, run_script, tmp_path):
    voc("a", voc_object("cat", 11, 21, 30, 60))
    voc("b", voc_object("cat", 11, 21, 30, 60))
    make_image("JPEGImages/a.jpg", 100, 80, orientation=6)  # boxes go by the image as stored
    make_image("JPEGImages/b.jpg", 80, 100, orientation=6)  # boxes go by the image as seen
    run_script("from_voc.py", tmp_path / "Annotations", tmp_path / "JPEGImages", tmp_path / "out.json")
    images = json.loads((tmp_path / "out.json").read_text())["images"]
    assert [(image["width"], image["height"]) for image in images] == [(100, 80), (100, 80)]


# ------------------------------------------------------------------- YOLO


@pytest.fixture
def yolo(tmp_path, make_image):
    """yolo("a", lines, orientation=1) writes an image stored as 200x100 px, its labels, and a data.yaml."""

    def write(stem: str, *lines: str, orientation: int = 1) -> None:
        make_image(f"images/train/{stem}.jpg", 200, 100, orientation)
        if lines:
            file = tmp_path / f"labels/train/{stem}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(lines) + "\n")
        (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}\n")

    return write


def convert_yolo(run_script, tmp_path, *more):
    arguments = (tmp_path / "images/train", tmp_path / "out.json", "--names", tmp_path / "data.yaml", *more)
    return run_script("from_yolo.py", *arguments)


def test_yolo_boxes_are_fractions_of_the_image_as_seen(yolo, run_script, tmp_path):
    yolo("a", "1 0.5 0.5 0.25 0.5", "0 0.1 0.2 0.2 0.4")
    yolo("b", "1 0.5 0.5 0.25 0.5", orientation=6)
    yolo("c")
    assert convert_yolo(run_script, tmp_path).returncode == 0
    assert boxes_of(tmp_path / "out.json") == [
        ("a.jpg", "dog", [75, 25, 50, 50], 0),
        ("a.jpg", "cat", [0, 0, 40, 40], 0),
        ("b.jpg", "dog", [37.5, 50, 25, 100], 0),
        ("c.jpg",),
    ]
    images = json.loads((tmp_path / "out.json").read_text())["images"]
    assert [(image["width"], image["height"]) for image in images] == [(200, 100), (100, 200), (200, 100)]


def test_yolo_names_from_a_text_file(yolo, run_script, tmp_path):
    yolo("a", "1 0.5 0.5 0.25 0.5")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    convert_yolo(run_script, tmp_path, "--names", tmp_path / "names.txt")
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "dog", [75, 25, 50, 50], 0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", "4 fields, expected 5"),
        ("7 0.5 0.5 0.1 0.1", "class 7 is not one of the 2 names"),
        ("0 50 50 10 10", "fractions of the image"),
        ("cat 0.5 0.5 0.1 0.1", "not an integer"),
        ("0 0.5 0.5 0 0.1", "box is empty"),
        ("0 0.9 0.5 0.5 0.1", "outside its image"),
        ("0 nan 0.5 0.1 0.1", "fractions"),
    ],
)
def test_yolo_bad_line_names_file_and_line(yolo, run_script, tmp_path, line, message):
    yolo("a", "0 0.5 0.5 0.25 0.5", line)
    fails(convert_yolo(run_script, tmp_path), "a.txt:2", message)


def test_yolo_drop_bad_and_orphans(yolo, run_script, tmp_path):
    yolo("a", "0 0.5 0.5 0.25 0.5", "0 2 2 2 2")
    assert "1 object, 1 bad left out" in convert_yolo(run_script, tmp_path, "--drop-bad").stdout
    yolo("b", "0 0.5 0.5 0.25 0.5")
    (tmp_path / "images/train/b.jpg").unlink()
    fails(convert_yolo(run_script, tmp_path), "b.txt", "without an image")
    (tmp_path / "data.yaml").write_text("nc: 2\n")
    fails(convert_yolo(run_script, tmp_path), "data.yaml has no `names:`")


# ------------------------------------------------------------------- CSV


def convert_csv(run_script, tmp_path, text: str, *more):
    (tmp_path / "boxes.csv").write_text(text, encoding="utf-8")
    return run_script("from_csv.py", tmp_path / "boxes.csv", tmp_path / "out.json", *more)


def test_csv_as_keras_retinanet_has_it(make_image, run_script, tmp_path):
    make_image("photos/a.jpg", 100, 80)
    make_image("photos/b.png", 100, 80)
    done = convert_csv(
        run_script, tmp_path, "photos/a.jpg,10,20,30,60,cat\nphotos/b.png,,,,,\nphotos/a.jpg,0.5,0,100.4,80,dog\n"
    )
    assert done.returncode == 0, done.stderr
    assert boxes_of(tmp_path / "out.json") == [
        ("photos/a.jpg", "cat", [10, 20, 20, 40], 0),
        ("photos/a.jpg", "dog", [0.5, 0, 99.5, 80], 0),
        ("photos/b.png",),
    ]


def test_csv_with_a_header_in_another_order(make_image, run_script, tmp_path):
    make_image("photos/a.jpg", 100, 80)
    text = "\ufefffilename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,100,80,cat,10,20,30,60\n"
    convert_csv(run_script, tmp_path, text, "--images", tmp_path / "photos")
    assert boxes_of(tmp_path / "out.json") == [("a.jpg", "cat", [10, 20, 20, 40], 0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg,10,20,30,60", "fields"),
        ("a.jpg,10,20,30,,cat", "not four numbers"),
        ("b.jpg,1,2,3,4,cat", "cannot read image"),
        ("a.jpg,30,20,10,60,cat", "box is empty"),
        ("a.jpg,1,2,3,4,", "class name is empty"),
        ("a.jpg,1,2,3,400,cat", "outside its image"),
    ],
)
def test_csv_bad_line_names_file_and_line(make_image, run_script, tmp_path, line, message):
    make_image("a.jpg", 100, 80)
    fails(convert_csv(run_script, tmp_path, f"a.jpg,1,2,3,4,cat\n{line}\n"), "boxes.csv:2", message)


def test_csv_header_lacking_a_column(make_image, run_script, tmp_path):
    fails(convert_csv(run_script, tmp_path, "path,x1,y1,x2,y2,klass\n"), "boxes.csv:1", "'class'", "'klass'")


def test_command_line_errors_are_one_line(run_script):
    fails(run_script("from_csv.py", "a.csv", "out.json", "--imagse", "x"), "did you mean --images?")
    fails(run_script("from_yolo.py"), "required")
