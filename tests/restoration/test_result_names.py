"""Results' names: no two meet, none replaces a source, folders and odd names are kept."""

from pathlib import Path

import pytest

from vosr_jax.restoration.jobs import plan_jobs


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(b"x")

    return make


def _names(*paths, **options) -> dict[str, str]:
    jobs = plan_jobs(paths, Path(options.pop("out", "out")), **options).jobs
    return {str(job.source): job.name for job in jobs}


def test_two_endings_of_one_name_are_told_apart_by_them(here):
    here("in/a.jpg", "in/a.png", "in/b.png")
    expected = {"in/a.jpg": "a.jpg.png", "in/a.png": "a.png.png", "in/b.png": "b.png"}
    assert _names("in") == expected


def test_a_comparison_replaces_no_result(here):
    here("in/a.jpg", "in/a-compare.jpg")
    assert sorted(_names("in").values()) == ["a-compare.png", "a.png"]
    names = sorted(_names("in", compare=True).values())
    assert names == ["a-compare.jpg.png", "a.jpg.png"]
    jobs = plan_jobs(["in"], Path("out"), compare=True).jobs
    files = [str(path) for job in jobs for path in (job.target, job.comparison)]
    assert len(set(files)) == 4


def test_names_that_differ_by_case_alone_do_not_meet_on_any_disk(here):
    here("in/A.jpg", "in/a.png")
    assert sorted(_names("in").values()) == ["A.jpg.png", "a.png.png"]


def test_a_patterns_folders_below_its_fixed_part_are_kept(here):
    here("holiday/monday/IMG_1.jpg", "holiday/tuesday/IMG_1.jpg", "holiday/IMG_2.jpg")
    expected = ["IMG_2.png", "monday/IMG_1.png", "tuesday/IMG_1.png"]
    assert sorted(_names("holiday/**/*.jpg").values()) == expected
    assert sorted(_names("holiday/*/IMG_1.jpg").values()) == expected[1:]


def test_files_that_a_shell_has_listed_keep_the_folders_that_tell_them_apart(here):
    here("x/monday/IMG_1.jpg", "x/tuesday/IMG_1.jpg", "x/IMG_2.jpg")
    names = _names("x/monday/IMG_1.jpg", "x/tuesday/IMG_1.jpg", "x/IMG_2.jpg")
    assert list(names.values()) == ["IMG_2.png", "monday/IMG_1.png", "tuesday/IMG_1.png"]


def test_a_file_named_twice_is_restored_once(here):
    here("in/a.jpg")
    assert len(_names("in", "in/a.jpg", "./in/../in/a.jpg")) == 1


def test_long_names_leave_room_for_what_is_added(here):
    stem = "n" * 245
    here(f"in/{stem}.jpg", f"in/{'ö' * 125}.jpg")
    for job in plan_jobs(["in"], Path("out"), suffix="-large", compare=True).jobs:
        assert len(job.target.name.encode()) <= 255 and len(job.comparison.name.encode()) <= 255
        assert job.target.name[:50] == job.source.name[:50]


def test_other_files_are_counted_by_kind_and_ours_are_not(here):
    here("in/a.jpg", "in/b.txt", "in/c.txt", "in/d.mp4", "in/e", "in/manifest.json", "in/.hidden")
    plan = plan_jobs(["in"], Path("out"))
    assert plan.ignored_line == "4 other files ignored: .mp4, 2 .txt, without an ending"
    assert plan_jobs(["in/a.jpg"], Path("out")).ignored_line is None


def test_pictures_of_phones_are_found_in_folders(here):
    names = ["a.jfif", "b.jpe", "c.avif", "d.gif", "e.ppm", "f.tga", "g.heic", "h.HEIF"]
    here(*(f"in/{name}" for name in names))
    assert len(_names("in")) == len(names)
