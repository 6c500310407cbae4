import numpy as np

from labelgen.engines.one_pixel.equations import similarity
from labelgen.engines.one_pixel.representation import best_centre, class_scores, object_vector, scene_vectors


def test_best_centre_of_one_vector_is_that_vector() -> None:
    np.testing.assert_allclose(best_centre(np.array([[1.0, 3.0]], np.float32)), [0.25, 0.75])


def test_best_centre_by_hand() -> None:
    """All vectors reach the smallest values, which sum to 0.4; the second smallest would sum to 1.2."""
    x = np.array([[0.6, 0.4, 0.0], [0.2, 0.5, 0.3], [0.5, 0.2, 0.3]], np.float32)
    smallest, second = np.array([0.2, 0.2, 0.0]), np.array([0.5, 0.4, 0.3])
    np.testing.assert_allclose(best_centre(x), smallest + 0.75 * (second - smallest), atol=1e-6)


def test_best_centre_of_vectors_that_say_nothing_says_nothing() -> None:
    np.testing.assert_array_equal(best_centre(np.zeros((2, 3), np.float32)), np.zeros(3))


def test_no_vector_of_sum_1_beats_the_best_centre() -> None:
    rng = np.random.default_rng(0)
    x = rng.dirichlet(np.full(6, 0.5), size=5).astype(np.float32)
    best = similarity(x, best_centre(x)[None]).sum()
    tried = [*rng.dirichlet(np.ones(6), size=2000), x.mean(0), np.median(x, axis=0), *x]
    assert max(similarity(x, np.array(m, np.float32)[None]).sum() for m in tried) <= best + 1e-5


def test_an_object_is_the_centre_of_what_is_most_like_its_labelled_superpixel() -> None:
    """Of four superpixels a half counts: the labelled one and the next."""
    x = np.array([[0.8, 0.2, 0.0], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0], [0.0, 0.5, 0.5]], np.float32)
    np.testing.assert_allclose(object_vector(x, 0, 0.5), best_centre(x[:2])[None], atol=1e-6)
    np.testing.assert_allclose(object_vector(x, 2, 0.01), x[2:3])


def test_a_scene_has_a_vector_for_each_group_of_its_neighbourhood() -> None:
    x = np.array([[1.0, 0, 0], [0, 1.0, 0], [0.9, 0.1, 0], [0, 0.8, 0.2]], np.float32)
    vectors = scene_vectors(x, 0, 2)
    np.testing.assert_allclose(vectors, [best_centre(x[[0, 2]]), best_centre(x[[1, 3]])], atol=1e-6)
    np.testing.assert_allclose(scene_vectors(x, 0, 1), best_centre(x)[None], atol=1e-6)


def test_one_superpixel_is_its_classs_only_vector() -> None:
    alone = np.array([[0.25, 0.75]], np.float32)
    np.testing.assert_allclose(object_vector(alone, 0, 0.01), alone)
    np.testing.assert_allclose(scene_vectors(alone, 0, 3), alone)


def test_the_best_of_a_classs_vectors_counts_and_a_class_without_one_has_no_score() -> None:
    x = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    vectors = np.array([[0.0, 1.0], [0.75, 0.25], [1.0, 0.0]], np.float32)
    scores = class_scores(x, vectors, np.array([2, 0, 0]), 3)
    np.testing.assert_allclose(scores[:, 0], [1.0, 0.75])
    np.testing.assert_allclose(scores[:, 2], [0.0, 0.5])
    assert np.isnan(scores[:, 1]).all()
