import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from pixelwise.evaluation import metrics
from pixelwise.evaluation.metrics import confusion_matrix, scores
from pixelwise.labels import IGNORE


@st.composite
def maps(draw, ignored=True):
    """Draw truth and prediction of some pixels, with absent classes often."""
    classes = draw(st.integers(1, 6))
    count = draw(st.integers(1, 60))
    truth = draw(st.lists(st.integers(IGNORE if ignored else 0, classes - 1), min_size=count, max_size=count))
    prediction = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return np.array(truth), np.array(prediction), classes


def names(classes):
    return [f"class {i}" for i in range(classes)]


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(maps())
def test_the_matrix_is_scikit_learns_over_the_pixels_that_are_not_ignored(case):
    truth, prediction, classes = case
    kept = truth != IGNORE
    matrix = confusion_matrix(truth, prediction, classes)
    if kept.any():
        expected = sklearn.confusion_matrix(truth[kept], prediction[kept], labels=range(classes))
        np.testing.assert_array_equal(matrix, expected)
    assert matrix.sum() == kept.sum()


@given(maps(ignored=False))
def test_each_score_of_a_class_is_scikit_learns(case):
    truth, prediction, classes = case
    found = scores(confusion_matrix(truth, prediction, classes), names(classes))
    every = {"labels": range(classes), "average": None, "zero_division": np.nan}
    iou = sklearn.jaccard_score(truth, prediction, labels=range(classes), average=None, zero_division=0)
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(truth, prediction, **every)
    for i, each in enumerate(found.classes):
        assert each.pixels == support[i]
        true, predicted = (truth == i).any(), (prediction == i).any()
        assert each.iou == (pytest.approx(iou[i]) if true or predicted else None)
        assert each.precision == (pytest.approx(precision[i]) if predicted else None)
        assert each.recall == (pytest.approx(recall[i]) if true else None)
        assert each.f1 == (pytest.approx(f1[i]) if true or predicted else None)


@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label was found")
@given(maps(ignored=False))
def test_each_score_of_all_classes_is_scikit_learns(case):
    truth, prediction, classes = case
    found = scores(confusion_matrix(truth, prediction, classes), names(classes))
    present = sorted({*truth.tolist(), *prediction.tolist()})
    assert found.miou == pytest.approx(
        sklearn.jaccard_score(truth, prediction, labels=present, average="macro", zero_division=0)
    )
    assert found.frequency_weighted_iou == pytest.approx(
        sklearn.jaccard_score(truth, prediction, labels=present, average="weighted", zero_division=0)
    )
    assert found.pixel_accuracy == pytest.approx(sklearn.accuracy_score(truth, prediction))
    assert found.mean_accuracy == pytest.approx(sklearn.balanced_accuracy_score(truth, prediction))
    assert found.pixels == len(truth)
    if len(present) > 1:
        kappa = sklearn.cohen_kappa_score(truth, prediction)
        assert found.kappa == pytest.approx(kappa, abs=1e-12)


@given(maps(), st.data())
def test_matrices_of_any_partition_add_to_that_of_the_whole(case, data):
    truth, prediction, classes = case
    owner = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(truth), max_size=len(truth))))
    parts = [confusion_matrix(truth[owner == i], prediction[owner == i], classes) for i in range(4)]
    np.testing.assert_array_equal(sum(parts), confusion_matrix(truth, prediction, classes))


@given(maps(), st.data())
def test_renumbering_the_classes_renumbers_the_scores_and_leaves_the_means(case, data):
    truth, prediction, classes = case
    new = np.array(data.draw(st.permutations(range(classes))))
    before = scores(confusion_matrix(truth, prediction, classes), names(classes))
    renamed = np.where(truth == IGNORE, IGNORE, new[truth])
    after = scores(confusion_matrix(renamed, new[prediction], classes), names(classes))
    for i, each in enumerate(before.classes):
        other = after.classes[new[i]]
        assert (each.iou, each.precision, each.recall, each.f1) == (
            other.iou,
            other.precision,
            other.recall,
            other.f1,
        )
    for name in ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "kappa"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=1e-12)


@given(maps(), st.integers(1, 7))
def test_the_size_of_the_chunks_does_not_matter(case, chunk):
    truth, prediction, classes = case
    whole = confusion_matrix(truth, prediction, classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "CHUNK", chunk)
        np.testing.assert_array_equal(confusion_matrix(truth, prediction, classes), whole)


@given(maps(ignored=False))
def test_a_perfect_prediction_scores_1_in_every_class_that_there_is(case):
    truth, _, classes = case
    found = scores(confusion_matrix(truth, truth, classes), names(classes))
    for each in found.classes:
        assert each.absent or (each.iou, each.precision, each.recall, each.f1) == (1, 1, 1, 1)
    means = (found.miou, found.pixel_accuracy, found.mean_accuracy, found.frequency_weighted_iou)
    assert means == pytest.approx((1, 1, 1, 1))
    assert found.kappa == (pytest.approx(1) if len(set(truth)) > 1 else None)


def test_maps_of_any_shape_and_type_of_integer_are_counted():
    truth, prediction = np.array([[0, 1], [IGNORE, 1]], np.int16), np.array([[0, 1], [1, 0]], np.uint8)
    assert confusion_matrix(truth, prediction, 2).tolist() == [[1, 0], [1, 1]]
    assert confusion_matrix(truth.T, prediction.T, 2).tolist() == [[1, 0], [1, 1]]


def test_the_dict_names_the_classes_that_each_mean_is_not_over():
    found = scores(confusion_matrix(np.array([0, 0]), np.array([0, 1]), 3), ["a", "b", "c"])
    assert found.to_dict()["left_out"] == {"mIoU": ["c"], "mean_accuracy": ["b", "c"]}


def test_table_rows_hold_name_iou_precision_recall_f1_and_pixels():
    found = scores(confusion_matrix(np.array([0, 0]), np.array([0, 1]), 3), ["a", "b", "c"])
    assert found.rows() == [
        ("a", 0.5, 1.0, 0.5, pytest.approx(2 / 3), 2),
        ("b", 0.0, 0.0, None, 0.0, 0),
        ("c", None, None, None, None, 0),
    ]


def test_an_absent_class_has_no_score_and_no_part_in_the_mean():
    found = scores(confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 3), ["a", "b", "c"])
    assert [each.iou for each in found.classes] == [0.5, 0.5, None]
    assert found.classes[2].absent
    assert found.miou == 0.5
    assert found.to_dict()["absent"] == ["c"]


def test_a_class_that_is_predicted_but_never_true_counts_as_iou_0():
    found = scores(confusion_matrix(np.array([0, 0, 0, 0]), np.array([0, 0, 0, 1]), 2), ["a", "b"])
    assert found.classes[1].iou == 0
    assert found.classes[1].recall is None
    assert found.miou == pytest.approx(0.75 / 2)
    assert found.mean_accuracy == 0.75


def test_nothing_counted_gives_no_scores_and_no_warning():
    found = scores(confusion_matrix(np.full(5, IGNORE), np.zeros(5, int), 2), ["a", "b"])
    assert (found.miou, found.pixel_accuracy, found.kappa, found.frequency_weighted_iou) == (None,) * 4
    assert json.loads(json.dumps(found.to_dict()))["mIoU"] is None


def test_counts_of_a_country_at_10_cm_do_not_overflow():
    pixels = np.array([[30, 10], [5, 55]], np.int64)
    small, large = scores(pixels, ["a", "b"]), scores(pixels * 10**12, ["a", "b"])
    assert large.kappa == pytest.approx(small.kappa)
    assert large.frequency_weighted_iou == pytest.approx(small.frequency_weighted_iou)


@pytest.mark.parametrize(
    ("truth", "prediction", "name"), [(3, 0, "truth"), (-2, 0, "truth"), (0, 3, "prediction"), (0, -1, "prediction")]
)
def test_a_value_that_is_no_class_raises(truth, prediction, name):
    with pytest.raises(ValueError, match=name):
        confusion_matrix(np.array([truth, 1]), np.array([prediction, 1]), 3)


def test_a_prediction_under_an_ignored_pixel_may_be_anything():
    assert confusion_matrix(np.array([IGNORE, 1]), np.array([255, 1]), 2).tolist() == [[0, 0], [0, 1]]
