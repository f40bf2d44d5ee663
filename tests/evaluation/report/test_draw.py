"""Pictures of detections and of ground truth."""

import numpy as np

from detector.evaluation.detections import Detections
from detector.evaluation.report.draw import class_colour, contact_sheet, draw_boxes, truth_beside_detections

IMAGE = np.full((60, 80, 3), 90, np.uint8)
BOX = np.array([[20.0, 30.0, 40.0, 50.0]], np.float32)


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def test_detections_have_the_colour_of_their_class_and_objects_are_white():
    found = draw_boxes(IMAGE, BOX, np.array([3]), ["cat"], np.array([0.9]))
    assert found.shape == IMAGE.shape and (IMAGE == 90).all()
    assert tuple(found[40, 19]) == rgb(class_colour(3))
    assert tuple(draw_boxes(IMAGE, BOX, np.array([3]), ["cat"])[40, 19]) == (255, 255, 255)


def test_a_picture_is_resized_before_its_lines_are_drawn():
    picture = draw_boxes(IMAGE, BOX, np.array([0]), ["cat"], width=320)
    assert picture.shape == (240, 320, 3)
    white = (picture[160] == 255).all(axis=1)
    assert np.flatnonzero(white).tolist() == [79, 160]  # one pixel wide, around 80 to 160


def test_lines_grow_with_the_picture():
    large = np.full((1200, 1600, 3), 90, np.uint8)
    picture = draw_boxes(large, 20 * BOX, np.array([0]), ["cat"])
    assert (picture[800] == 255).all(axis=1).sum() == 2 * 4


def test_truth_beside_detections_and_sheets_of_such_pictures():
    found = Detections(np.zeros(1, int), BOX, np.array([0.9], np.float32), np.array([0]))
    pictures = [truth_beside_detections(IMAGE[:h], (BOX, np.array([0])), found, ["cat"]) for h in (60, 55, 60)]
    assert [picture.shape[1] for picture in pictures] == [640, 640, 640]
    sheet = contact_sheet(pictures, columns=2)
    assert sheet.shape == (len(pictures[0]) + len(pictures[2]), 1280, 3)
    assert (sheet[: len(pictures[1]), 640:] == pictures[1]).all()
    assert (sheet[len(pictures[0]) :, 640:] == 128).all()
